"""The gRPC link: a real server on loopback, and what its words become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from common import rpc
from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import session_pb2 as pb
from common.pb.vsignal.v1 import session_pb2_grpc, signaling_pb2, signaling_pb2_grpc
from common.status import refusal_to_status
from vserver.link import GrpcLink, LinkLost


class Sessions(session_pb2_grpc.SessionServicer):
    """Welcomes, then does as `then` says."""

    def __init__(self) -> None:
        self.then = "wait"
        self.ended = asyncio.Event()
        self.callers: list[str] = []

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[pb.CenterMessage]:
        metadata = dict(context.invocation_metadata())
        self.callers.append(str(metadata[rpc.IDENTITY_KEY]))
        try:
            await anext(requests)
            yield pb.CenterMessage(welcome=pb.Welcome(domain="test"))
            match self.then:
                case "wait":
                    await asyncio.Event().wait()
                case "cancel":
                    await context.abort(grpc.StatusCode.CANCELLED, "no more")
                case "refuse":
                    refusal = Refusal(Reason.NOT_YOUR_SERVER, "not you")
                    status = refusal_to_status(refusal)
                    await context.abort_with_status(rpc_status.to_status(status))
        finally:
            self.ended.set()


class Signaling(signaling_pb2_grpc.SignalingServicer):
    async def Register(self, request: Any, context: Any) -> signaling_pb2.RegisterResponse:
        refusal = Refusal(Reason.CLAIM_HELD, "held", evidence={"holder": "other"})
        await context.abort_with_status(rpc_status.to_status(refusal_to_status(refusal)))
        raise AssertionError("abort returns never")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[GrpcLink, Sessions, grpc.aio.Server]]:
    server = rpc.server()
    sessions = Sessions()
    session_pb2_grpc.add_SessionServicer_to_server(sessions, server)
    signaling_pb2_grpc.add_SignalingServicer_to_server(Signaling(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = GrpcLink(f"127.0.0.1:{port}", "host-1")
    try:
        yield link, sessions, server
    finally:
        await link.close()
        await server.stop(0)


async def test_it_says_who_it_is_and_leaves_no_call_behind() -> None:
    async with served() as (link, sessions, _):
        async with link.attach(pb.Hello(version="1")) as stream:
            assert (await stream.receive()).welcome.domain == "test"
        assert sessions.callers == ["vserver/host-1"]
        async with asyncio.timeout(5):
            await sessions.ended.wait()


@pytest.mark.parametrize("then", ["end", "cancel"])
async def test_a_stream_that_the_vcenter_ends_is_a_lost_link(then: str) -> None:
    async with served() as (link, sessions, _):
        sessions.then = then
        async with link.attach(pb.Hello()) as stream:
            await stream.receive()
            with pytest.raises(LinkLost):
                await stream.receive()
            with pytest.raises(LinkLost):
                await stream.send(pb.AgentMessage())


async def test_a_server_that_stops_is_a_lost_link() -> None:
    async with served() as (link, _, server), link.attach(pb.Hello()) as stream:
        await stream.receive()
        stopping = asyncio.create_task(server.stop(0))
        with pytest.raises(LinkLost):
            await stream.receive()
        await stopping


async def test_nobody_there_is_a_lost_link() -> None:
    link = GrpcLink("127.0.0.1:1", "host-1")
    with pytest.raises(LinkLost):
        async with link.attach(pb.Hello()) as stream:
            await stream.receive()
    with pytest.raises(LinkLost):
        await link.register(signaling_pb2.RegisterRequest())
    await link.close()


async def test_refusals_keep_their_reason_and_evidence() -> None:
    async with served() as (link, sessions, _):
        with pytest.raises(Refusal) as caught:
            await link.register(signaling_pb2.RegisterRequest())
        assert caught.value.reason is Reason.CLAIM_HELD
        assert caught.value.evidence == {"holder": "other"}
        sessions.then = "refuse"
        async with link.attach(pb.Hello()) as stream:
            await stream.receive()
            with pytest.raises(Refusal, match="not you"):
                await stream.receive()


async def test_our_own_cancellation_stays_one() -> None:
    async with served() as (link, _, _), link.attach(pb.Hello()) as stream:
        await stream.receive()
        reading = asyncio.create_task(stream.receive())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
