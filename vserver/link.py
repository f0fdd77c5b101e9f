"""The way to one vCenter, as a port: gRPC in production, anything else under simulation.

A call ends in one of three ways: an answer; a `Refusal`, which is the vCenter's own word; or
`LinkLost`, after which nobody knows whether it was heard. All that we say may be said again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import grpc

from common import rpc
from common.pb.vsignal.v1 import session_pb2, session_pb2_grpc, signaling_pb2, signaling_pb2_grpc
from common.status import refusal_from_call

CALL_WITHIN = 10.0  # seconds; registering an arrival asks two hypervisors on the way

T = TypeVar("T")


class LinkLost(Exception):
    """The vCenter cannot be reached, or went away."""


class Stream(Protocol):
    """An attached session. One task sends, one receives."""

    async def send(self, message: session_pb2.AgentMessage) -> None: ...

    async def receive(self) -> session_pb2.CenterMessage:
        """The next message; `LinkLost` when the vCenter has ended the stream."""
        ...


class Link(Protocol):
    @property
    def name(self) -> str:
        """The vCenter's address, for people."""
        ...

    def attach(self, hello: session_pb2.Hello) -> AbstractAsyncContextManager[Stream]: ...

    async def register(
        self, request: signaling_pb2.RegisterRequest
    ) -> signaling_pb2.RegisterResponse: ...

    async def deregister(
        self, request: signaling_pb2.DeregisterRequest
    ) -> signaling_pb2.DeregisterResponse: ...

    async def report(
        self, request: signaling_pb2.ReportRequest
    ) -> signaling_pb2.ReportResponse: ...

    async def lookup(
        self, request: signaling_pb2.LookupRequest
    ) -> signaling_pb2.LookupResponse: ...

    async def close(self) -> None: ...


class GrpcLink:
    """Dials out; the host opens no port to the vCenter."""

    def __init__(
        self,
        address: str,
        server_id: str,
        channel: Callable[[str], grpc.aio.Channel] = rpc.channel,
    ) -> None:
        self._address = address
        self._identity = rpc.identity(f"vserver/{server_id}")
        self._make = channel
        self._streams = 0
        self._connect()

    def _connect(self) -> None:
        self._channel = self._make(self._address)
        self._session = session_pb2_grpc.SessionStub(self._channel)
        self._signaling = signaling_pb2_grpc.SignalingStub(self._channel)

    async def reconnect(self) -> None:
        """With a new certificate, say: what comes next goes a new way; a stream keeps its own."""
        old, streams = self._channel, self._streams
        self._streams = 0
        self._connect()
        if not streams:
            await old.close(CALL_WITHIN)

    @property
    def name(self) -> str:
        return self._address

    @asynccontextmanager
    async def attach(self, hello: session_pb2.Hello) -> AsyncIterator[Stream]:
        channel = self._channel
        call = self._session.Attach(metadata=self._identity)
        self._streams += 1
        try:
            stream = _GrpcStream(call)
            await stream.send(session_pb2.AgentMessage(hello=hello))
            yield stream
        finally:
            call.cancel()  # a call that is only dropped is never collected (grpc #43462)
            if channel is self._channel:
                self._streams -= 1
            else:
                await channel.close()

    async def register(
        self, request: signaling_pb2.RegisterRequest
    ) -> signaling_pb2.RegisterResponse:
        register = self._signaling.Register
        return await _answer(register(request, timeout=CALL_WITHIN, metadata=self._identity))

    async def deregister(
        self, request: signaling_pb2.DeregisterRequest
    ) -> signaling_pb2.DeregisterResponse:
        deregister = self._signaling.Deregister
        return await _answer(deregister(request, timeout=CALL_WITHIN, metadata=self._identity))

    async def report(self, request: signaling_pb2.ReportRequest) -> signaling_pb2.ReportResponse:
        return await _answer(
            self._signaling.Report(request, timeout=CALL_WITHIN, metadata=self._identity)
        )

    async def lookup(self, request: signaling_pb2.LookupRequest) -> signaling_pb2.LookupResponse:
        return await _answer(
            self._signaling.Lookup(request, timeout=CALL_WITHIN, metadata=self._identity)
        )

    async def close(self) -> None:
        await self._channel.close()


class _GrpcStream:
    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[session_pb2.AgentMessage, session_pb2.CenterMessage],
    ) -> None:
        self._call = call

    async def send(self, message: session_pb2.AgentMessage) -> None:
        await _answer(self._call.write(message))

    async def receive(self) -> session_pb2.CenterMessage:
        message = await _answer(self._call.read())
        if not isinstance(message, session_pb2.CenterMessage):
            raise LinkLost("the vCenter ended the stream")
        return message


async def _answer(call: Awaitable[T]) -> T:
    """Await a call, in our own three words."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        refusal = refusal_from_call(error)
        if refusal is not None:
            raise refusal from error
        raise LinkLost(f"{error.code().name}: {error.details()}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled us: grpc.aio says it this way when the *server* has cancelled the call.
        raise LinkLost("the vCenter cancelled the call") from error
    except asyncio.InvalidStateError as error:
        raise LinkLost("the stream is over") from error
