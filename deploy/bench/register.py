"""What it costs to register: in bulk beside bare SQLite, one by one beside a bare echo."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

from common.codec.server import to_network, to_server
from common.model.server import VirtualNetwork
from common.pb.vsignal.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from common.rpc import channel, identity
from deploy.bench.bare import ECHO
from deploy.bench.daemon import OPERATOR, Process, bare, scratch, vcenter
from deploy.bench.entry import Entry, compared
from deploy.bench.population import Guest, Population, net, server, server_id, tenant_of

GROUP = 1_000
FLIGHT = 256
SPREAD = 10_000  # VMs on one network


def bulk(vms: int, rounds: int) -> list[Entry]:
    """`vms` in all, an equal part each round: SyncGroup in chunks of a thousand, two under way."""
    part = max(GROUP, vms // rounds)
    population = Population(part * rounds, SPREAD)
    guests = population.guests()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        ours_at = stack.enter_context(vcenter(folder, folder / "ledger.db"))
        asyncio.run(_declare(ours_at, population))
        ours, raw = [], []
        for number in range(rounds):
            raw.append(_raw_rows(folder / "raw.db", number * part, part))
            members = list(islice(guests, part))
            ours.append(asyncio.run(_sync(ours_at, members)))
    conditions = {"vms": part * rounds, "members_a_chunk": GROUP, "vms_a_network": SPREAD}
    rival = "SQLite, WAL, FULL: rows with random keys and 220-byte values, 1,000 a commit"
    return [compared("register-bulk", "VMs/s", ours, rival, raw, **conditions)]


def unary(vms: int, rounds: int) -> list[Entry]:
    """`vms` in all; the same Python client drives both servers, one after the other."""
    part = max(FLIGHT, vms // rounds)
    population = Population(part * rounds, SPREAD)
    guests = population.guests()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        echo_at = stack.enter_context(bare("echo"))
        ours_at = stack.enter_context(vcenter(folder, folder / "ledger.db"))
        asyncio.run(_declare(ours_at, population))
        ours, echo, late = [], [], []
        for _ in range(rounds):
            requests = [member_of(g).SerializeToString() for g in islice(guests, part)]
            echo.append(asyncio.run(calls(echo_at, ECHO, requests))[0])
            path = "/vsignal.v1.Signaling/Register"
            rate, p99 = asyncio.run(calls(ours_at, path, requests))
            ours.append(rate)
            late.append(round(p99, 1))
    conditions = {"vms": part * rounds, "in_flight": FLIGHT, "p99_ms": late}
    rival = "grpc.aio echo of the request, same client"
    return [compared("register-unary", "calls/s", ours, rival, echo, **conditions)]


HOST = server_id(0)  # on one vServer: what a host that comes up has


def member_of(guest: Guest) -> signaling_pb2.RegisterRequest:
    request = signaling_pb2.RegisterRequest(state=types_pb2.VM_STATE_RUNNING)
    guest.fill(request.vm)
    return request


async def _declare(at: Process, population: Population) -> None:
    """Operators first, then the host says hello."""
    async with channel(at.target) as link:
        inventory = inventory_pb2_grpc.InventoryStub(link)
        for number in range(population.networks):
            await _declare_network(inventory, number)
        attach = session_pb2_grpc.SessionStub(link).Attach(metadata=identity(f"vserver/{HOST}"))
        hello = session_pb2.Hello(server=to_server(server(0)))
        await attach.write(session_pb2.AgentMessage(hello=hello))
        await attach.read()
        attach.cancel()


async def _declare_network(inventory: Any, number: int) -> None:
    tenant = tenant_of(number)
    await inventory.PutTenant(
        inventory_pb2.PutTenantRequest(tenant=types_pb2.Tenant(tenant_id=tenant)), metadata=OPERATOR
    )
    network = VirtualNetwork(net(number), tenant, (1_000 + number,))
    await inventory.PutNetwork(
        inventory_pb2.PutNetworkRequest(network=to_network(network)), metadata=OPERATOR
    )
    group = types_pb2.Group(tenant=tenant, name="web")
    await inventory.PutGroup(inventory_pb2.PutGroupRequest(group=group), metadata=OPERATOR)


async def _sync(at: Process, guests: Sequence[Guest]) -> float:
    """VMs per second until the last chunk is durable; tenant by tenant, as SyncGroup has it."""
    by_tenant: dict[str, list[Guest]] = {}
    for guest in guests:
        by_tenant.setdefault(tenant_of(guest.network), []).append(guest)
    streams = [(tenant, list(_chunks(members))) for tenant, members in by_tenant.items()]
    async with channel(at.target) as link:
        stub = signaling_pb2_grpc.SignalingStub(link)
        await link.channel_ready()
        started = time.perf_counter()
        for tenant, chunks in streams:
            begin = signaling_pb2.SyncGroupRequest.Begin(tenant=tenant, group="web")
            call = stub.SyncGroup(metadata=identity(f"vserver/{HOST}"))
            await call.write(signaling_pb2.SyncGroupRequest(begin=begin))
            await asyncio.gather(_send(call, chunks), _hear(call, len(chunks)))
        return len(guests) / (time.perf_counter() - started)


def _chunks(guests: Sequence[Guest]) -> Iterator[signaling_pb2.SyncGroupRequest]:
    for start in range(0, len(guests), GROUP):
        members = [member_of(g) for g in guests[start : start + GROUP]]
        chunk = signaling_pb2.SyncGroupRequest.Chunk(members=members)
        yield signaling_pb2.SyncGroupRequest(chunk=chunk)


async def _send(call: Any, chunks: Sequence[signaling_pb2.SyncGroupRequest]) -> None:
    for chunk in chunks:
        await call.write(chunk)
    await call.done_writing()


async def _hear(call: Any, count: int) -> None:
    for _ in range(count):
        response = await call.read()
        refused = [r for r in response.results if r.reason]
        if refused:
            raise RuntimeError(f"{len(refused)} were refused: {refused[0]}")


async def calls(at: Process, path: str, requests: Sequence[bytes]) -> tuple[float, float]:
    """Calls per second with `FLIGHT` under way, and the 99th percentile in milliseconds."""
    times: list[float] = []
    waiting = iter(requests)
    async with channel(at.target) as link:
        call: Any = link.unary_unary(path)
        await link.channel_ready()

        async def one_after_another() -> None:
            for request in waiting:
                began = time.perf_counter()
                await call(request, metadata=identity(f"vserver/{HOST}"))
                times.append(time.perf_counter() - began)

        started = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(FLIGHT)))
        seconds = time.perf_counter() - started
    return len(requests) / seconds, sorted(times)[len(times) * 99 // 100] * 1000


def _raw_rows(path: Path, start: int, count: int) -> float:
    """One table, one statement, a commit for every thousand."""
    rows = [(g.vm_id, b"x" * 220) for g in islice(Population(start + count).guests(), start, None)]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS t (key TEXT PRIMARY KEY, value BLOB)")
        began = time.perf_counter()
        for first in range(0, count, GROUP):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO t VALUES (?, ?)", rows[first : first + GROUP])
            db.execute("COMMIT")
        return count / (time.perf_counter() - began)
