"""One VM's location to a thousand attached agents, beside the same bytes on bare streams.

Every agent hosts one VM of the network, so that all of them must hear. Time is taken from the call
that makes the change (its fsync included) to the moment an agent has read it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio

from common.pb.vsignal.v1 import signaling_pb2, signaling_pb2_grpc
from common.pb.vsignal.v1 import types_pb2 as pb
from common.rpc import channel, identity
from deploy.bench.agents import Agent
from deploy.bench.bare import FIRE, STREAM
from deploy.bench.daemon import Process, bare, populated, scratch
from deploy.bench.entry import Entry, compared
from deploy.bench.population import Population, server_id

CHANNELS = 8
PATIENCE_S = 60.0


@dataclass
class Heard:
    """When each agent read something last, and how long that was."""

    at: list[float]
    size: int = 0


def run(vms: int, rounds: int) -> list[Entry]:
    """`vms` agents, each with one VM, all on one network."""
    population = Population(vms, spread=vms)
    population.servers = vms
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        ours_at = stack.enter_context(populated(folder, population))
        ours, size = asyncio.run(_ours(ours_at, population, rounds))
        bare_at = stack.enter_context(bare("fanout", str(size)))
        theirs = asyncio.run(_bare(bare_at, vms, rounds))
    conditions = {"agents": vms, "message_bytes": size, "client": f"one process, {CHANNELS} links"}
    rival = "grpc.aio streams fed from a queue each, same bytes"
    return [compared("fanout", "ms p99", ours, rival, theirs, **conditions)]


async def _ours(at: Process, population: Population, rounds: int) -> tuple[list[float], int]:
    guests = list(population.guests())
    heard = Heard([0.0] * population.servers)
    links = [channel(at.target) for _ in range(CHANNELS)]
    async with asyncio.TaskGroup() as tasks:
        attaching = (Agent(n).attach(links[n % CHANNELS]) for n in range(population.servers))
        calls = await asyncio.gather(*attaching)
        readers = [tasks.create_task(_listen(call, heard, n)) for n, call in enumerate(calls)]
        register = signaling_pb2_grpc.SignalingStub(links[0]).Register

        async def change(turn: int) -> None:
            guest = guests[turn]
            request = signaling_pb2.RegisterRequest(state=pb.VM_STATE_RUNNING)
            guest.fill(request.vm)
            request.vm.interfaces[0].mac = f"52:54:ff:00:00:{turn:02x}"  # its location, elsewhere
            await register(request, metadata=identity(f"vserver/{server_id(guest.server)}"))

        times = [await _round(heard, change, turn) for turn in range(rounds)]
        for reader in readers:
            reader.cancel()
    await asyncio.gather(*(link.close() for link in links))
    return times, heard.size


async def _listen(call: Any, heard: Heard, number: int) -> None:
    while (message := await call.read()) is not grpc.aio.EOF:
        if message.WhichOneof("message") == "network_change":
            heard.at[number] = time.perf_counter()
            heard.size = message.ByteSize()


async def _bare(at: Process, streams: int, rounds: int) -> list[float]:
    heard = Heard([0.0] * streams)
    links = [channel(at.target) for _ in range(CHANNELS)]

    async def listen(call: Any, number: int) -> None:
        while await call.read() is not grpc.aio.EOF:
            heard.at[number] = time.perf_counter()

    async with asyncio.TaskGroup() as tasks:
        calls: list[Any] = [links[n % CHANNELS].stream_stream(STREAM)() for n in range(streams)]
        readers = [tasks.create_task(listen(call, n)) for n, call in enumerate(calls)]
        await _quiet(heard)
        fire: Any = links[0].unary_unary(FIRE)

        async def change(turn: int) -> None:
            await fire(b"")

        times = [await _round(heard, change, turn) for turn in range(rounds)]
        for reader in readers:
            reader.cancel()
    await asyncio.gather(*(link.close() for link in links))
    return times


async def _round(heard: Heard, change: Callable[[int], Awaitable[None]], turn: int) -> float:
    """The 99th percentile over the agents, in milliseconds."""
    began = time.perf_counter()
    await change(turn)
    async with asyncio.timeout(PATIENCE_S):
        # Polled: an event for each message would slow the readers down. The owner hears nothing.
        while sum(at > began for at in heard.at) < len(heard.at) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    late = sorted(at - began for at in heard.at if at > began)
    await asyncio.sleep(0.3)
    return late[len(late) * 99 // 100] * 1000


async def _quiet(heard: Heard) -> None:
    """Everybody has heard something, and for a while nobody has heard anything new."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(heard.at) or time.perf_counter() - max(heard.at) < 1.0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
