"""How many may connect: whoever comes when that is reached is turned away at once."""

from __future__ import annotations

import asyncio
import itertools
import resource

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from common import rpc

MOST = 8
WITHIN_S = 30.0


async def healthy(channel: grpc.aio.Channel) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    answer = await stub.Check(request, timeout=WITHIN_S, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def turned_away(
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]], at_least: int
) -> None:
    """Returns when the server has ended so many."""
    ends = asyncio.as_completed([reader.read() for reader, _ in connections], timeout=WITHIN_S)
    for end in itertools.islice(ends, at_least):
        await end


async def test_a_server_that_is_full_turns_away_and_goes_on_serving() -> None:
    server, health = rpc.server(connections=MOST), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            assert await healthy(channel)
            for _ in range(3 * MOST):
                idle.append(await asyncio.open_connection("127.0.0.1", port))
            await turned_away(idle, at_least=2 * MOST)
            assert await healthy(channel), "who was there before is served"
            for _, writer in idle:
                writer.transport.abort()
            async with rpc.channel(f"127.0.0.1:{port}") as other:
                assert await healthy(other), "there is room again"
    finally:
        await server.stop(0)


def test_connections_leave_files_for_the_ledger() -> None:
    assert rpc.max_connections(65_536) == 65_536 - rpc.OWN_FILES
    assert rpc.max_connections(300) == 150
    assert rpc.max_connections(resource.RLIM_INFINITY) == rpc.MOST_CONNECTIONS
