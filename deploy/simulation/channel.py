"""The client's side of gRPC in memory: what a generated stub needs of a channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

from deploy.simulation.calls import Call, Status
from deploy.simulation.loop import current
from deploy.simulation.network import Ends, Network
from deploy.simulation.server import Servers

_DOUBLED = "/vsignal.v1.Signaling/"  # the draft's messages: each may be heard twice
Code = Callable[[Any], Any] | None  # None: the bytes themselves
_GONE = Status(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")


def _as_it_is(message: Any) -> Any:
    return message


class Channel:
    """From one machine to an address. `ear` hears what arrives: method and message."""

    def __init__(
        self,
        network: Network,
        servers: Servers,
        ends: Ends,
        ear: Callable[[str, bytes], None] = lambda _, __: None,
    ) -> None:
        self._network = network
        self._servers = servers
        self._ends = ends
        self._ear = ear
        self._calls: list[Call] = []

    def _method(self, path: str, to: Code, read: Code, *, up: bool) -> Any:
        to, read = to or _as_it_is, read or _as_it_is

        def call(
            request: Any = None, *, timeout: float | None = None, metadata: Any = None
        ) -> Outgoing:
            network = self._network
            made = Call(network, current(), self._ends, path, metadata)
            made.heard = lambda message: self._ear(path, message)  # type: ignore[method-assign]
            self._calls = [c for c in self._calls if c.status is None] + [made]
            made.begin(self._servers.accept)
            if timeout is not None:
                made.deadline = network.kernel.now() + timeout
                made.client.after(timeout, made.cancel, grpc.StatusCode.DEADLINE_EXCEEDED)
            outgoing = Outgoing(made, to, read)
            if not up:
                made.send(to(request))
                made.send_end()
                self._misfortune(made)
            return outgoing

        return call

    def _misfortune(self, call: Call) -> None:
        """A connection that breaks under a call, before it is heard or after; or a proxy that
        says it twice, the second time perhaps much later."""
        network = self._network
        if network.chance.random() < network.lossy:
            network.kernel.after(network.chance.uniform(0, 0.02), call.break_off, "lost")
        elif call.method.startswith(_DOUBLED) and network.chance.random() < network.doubling:
            late = network.chance.choice((0.0, network.chance.uniform(0, 12)))
            network.kernel.after(late, self._again, call)

    def _again(self, call: Call) -> None:
        call.again(self._servers.accept)

    def unary_unary(
        self,
        path: str,
        request_serializer: Code = None,
        response_deserializer: Code = None,
        **_: Any,
    ) -> Any:
        return self._method(path, request_serializer, response_deserializer, up=False)

    unary_stream = unary_unary

    def stream_stream(
        self,
        path: str,
        request_serializer: Code = None,
        response_deserializer: Code = None,
        **_: Any,
    ) -> Any:
        return self._method(path, request_serializer, response_deserializer, up=True)

    async def close(self, grace: float | None = None) -> None:
        for call in self._calls:
            call.cancel()


class Outgoing:
    """A call as its caller holds it: awaited, read, written, iterated, cancelled."""

    def __init__(self, call: Call, to: Any, read: Any) -> None:
        self._call = call
        self._to = to
        self._read = read

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            message = await self._call.replies.next()
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        if message is None:
            self._raise()
        # An answer counts when its status has come too, as in gRPC.
        while self._call.status is None:
            await self._call.replies.next()
        self._raise_unless_ok()
        return self._read(message)

    async def read(self) -> Any:
        try:
            message = await self._call.replies.next()
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        if message is not None:
            return self._read(message)
        self._raise_unless_ok()
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        await self._call.room()
        if self._call.status is not None:
            self._raise_unless_ok()
            raise asyncio.InvalidStateError("the call has ended")
        self._call.send(self._to(message))

    async def done_writing(self) -> None:
        self._call.send_end()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def cancel(self) -> bool:
        self._call.cancel()
        return True

    def _raise_unless_ok(self) -> None:
        if self._call.status is not None and self._call.status.code is not grpc.StatusCode.OK:
            self._raise()

    def _raise(self) -> None:
        status = self._call.status or _GONE
        if status.code is grpc.StatusCode.CANCELLED:
            raise asyncio.CancelledError  # that is how grpc.aio says it, whoever cancelled
        raise grpc.aio.AioRpcError(
            status.code,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(*status.trailers),
            details=status.details,
        )
