"""Three real etcd members and two vCenters, of which some fail: nothing acknowledged is lost, what
is old says so, and agents go where they are heard."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest

from common import rpc
from common.clock import SystemClock
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from common.status import refusal_from_call
from deploy.etcd.members import Cluster, free_ports
from tests.support.calls import Client
from tests.support.lab import Lab
from tests.support.nouns import by_id, rate, vm
from tests.support.replicas import replica_process, replicas
from tests.system.agents import until
from vserver.app import Agent, Parts
from vserver.config import AgentConfig
from vserver.hypervisor.memory import MemoryFleet
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.link import GrpcLink
from vserver.network.fabric import Fabric
from vserver.network.memory import MemoryNetwork
from vserver.state import MemoryState

CLOCK = SystemClock()


@pytest.fixture
async def cluster(tmp_path: Path, etcd_address: str) -> AsyncIterator[Cluster]:
    """`etcd_address` only says that there is an etcd to be had."""
    async with Cluster(tmp_path / "etcd", size=3) as cluster:
        yield cluster


class Counter:
    """Counts in a group of its own, as fast as it is acknowledged."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.acknowledged = 0
        self.under_way = 0

    async def run(self) -> None:
        while True:
            self.under_way = self.acknowledged + 1
            profile = types.Profile(ingress_rate=rate(self.under_way))
            group = types.Group(tenant="blue", name=self.name, profile=profile)
            try:
                await self.lab.operator.inventory.PutGroup(
                    inventory_pb2.PutGroupRequest(group=group)
                )
            except grpc.aio.AioRpcError as error:
                refusal = refusal_from_call(error)
                assert refusal is not None and refusal.reason is Reason.STORE_FAILED
                assert refusal.retry_after
                await CLOCK.sleep(0.1)
                continue  # the same count again: it may have been written
            self.acknowledged = self.under_way

    def check(self, lab: Lab) -> None:
        group = lab.center.ledger.table.group("blue", self.name)
        assert group is not None and group.profile is not None
        assert group.profile.ingress_rate is not None
        count = group.profile.ingress_rate.bits_per_second // 1_000_000
        assert self.acknowledged <= count <= self.under_way


async def test_each_member_is_killed_in_turn_and_nothing_acknowledged_is_lost(
    tmp_path: Path, cluster: Cluster
) -> None:
    async with replicas(tmp_path, cluster.address) as labs:
        counters = [Counter(lab, f"{lab.folder.name}{n}") for lab in labs for n in range(4)]
        running = [asyncio.create_task(counter.run()) for counter in counters]

        async def write_on() -> None:
            """Each of them: one replica's first write may have hung with the killed leader while
            the other's went on."""
            before = [c.acknowledged for c in counters]
            async with asyncio.timeout(60):
                while any(c.acknowledged == b for c, b in zip(counters, before, strict=True)):
                    await CLOCK.sleep(0.1)

        for victim in (await cluster.leader(), *cluster.members):
            await victim.kill()
            await write_on()
            await cluster.start(victim)
            await cluster.ready()
            await write_on()
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert {type(e) for e in ended} == {asyncio.CancelledError}
        last = await labs[0].store.revision()
        for lab in labs:
            assert await lab.center.ledger.feed.reached(last, 5.0)
            for counter in counters:
                counter.check(lab)


async def answer(lab: Lab) -> signaling_pb2.LookupResult:
    request = signaling_pb2.LookupRequest(keys=[by_id(1)])
    return (await lab.operator.directory.Lookup(request)).results[0]


async def test_without_a_majority_reads_are_stale_and_writes_refused_until_it_is_back(
    tmp_path: Path, cluster: Cluster
) -> None:
    async with replicas(tmp_path, cluster.address, lease_seconds=30.0) as labs:
        a, _ = labs
        h1 = await a.agent("h1")
        await h1.register(vm(1))
        for member in cluster.members[:2]:
            await member.kill()
        async with asyncio.timeout(15):
            for lab in labs:
                while (await answer(lab)).certainty != signaling_pb2.CERTAINTY_STALE:
                    await CLOCK.sleep(0.1)
        assert (await answer(a)).location.server_id == "h1"
        assert (await answer(a)).stale_since.seconds > 0
        put = inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id="green"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await a.operator.inventory.PutTenant(put)
        refusal = refusal_from_call(refused.value)
        assert refusal is not None
        assert refusal.reason is Reason.STORE_FAILED and refusal.retry_after
        await h1.until(lambda: not h1.attached)  # another replica might have orders for it
        for member in cluster.members[:2]:
            await cluster.start(member)
        await cluster.ready()
        async with asyncio.timeout(15):
            for lab in labs:
                while (await answer(lab)).certainty != signaling_pb2.CERTAINTY_AUTHORITATIVE:
                    await CLOCK.sleep(0.1)
        await h1.attach()
        await a.operator.inventory.PutTenant(put)


class Wires:
    """What lies between a vCenter and its etcd, and can be cut."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        self.ports = free_ports(len(cluster.members))

    @property
    def address(self) -> str:
        return "etcd://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    async def join(self) -> None:
        for port, member in zip(self.ports, self._cluster.members, strict=True):
            host, _, there = member.address.rpartition(":")

            async def carry(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                target: tuple[str, int] = (host, int(there)),
            ) -> None:
                await self._carry(reader, writer, *target)

            self._servers.append(await asyncio.start_server(carry, "127.0.0.1", port))

    async def cut(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._open:
            writer.close()
        self._servers.clear()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        try:
            back, forth = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, forth}
        await asyncio.gather(_pour(reader, forth), _pour(back, writer))
        self._open -= {writer, forth}


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def real_agent(*targets: str) -> AsyncIterator[Agent]:
    """An agent of ours, with a host in memory and several vCenters to choose from."""
    hypervisor = MemoryFleet(CLOCK, CopySpeed(1e9)).host("h1")
    config = AgentConfig.model_validate(
        {
            "server_id": "h1",
            "management_address": "192.0.2.1",
            "vtep_address": "192.0.2.1",
            "vcenter": targets,
            "plaintext": True,
            "state_dir": "/nowhere",
        },
        strict=False,
    )
    links = [GrpcLink(target, "h1") for target in targets]
    network = MemoryNetwork(Fabric(CLOCK).host("192.0.2.1"))
    agent = Agent(config, Parts(CLOCK, links, hypervisor, network, MemoryState()))
    running = asyncio.create_task(agent.run())
    try:
        await until(lambda: agent.wanted.in_step)
        yield agent
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_replica_that_is_cut_off_from_etcd_gives_its_agents_away(
    tmp_path: Path, cluster: Cluster
) -> None:
    wires = Wires(cluster)
    await wires.join()
    async with (
        replicas(tmp_path / "1", wires.address, "a") as (a,),
        replicas(tmp_path / "2", cluster.address, "b") as (b,),
        real_agent(f"unix:{a.folder}/vcenter.sock", f"unix:{b.folder}/vcenter.sock"),
    ):
        assert (await b.server("h1")).server.attached_to == "a"
        await wires.cut()
        async with asyncio.timeout(20):
            while (await b.server("h1")).server.attached_to != "b":
                await CLOCK.sleep(0.05)
        assert (await b.server("h1")).server.liveness == types.LIVENESS_ATTACHED
        await b.operator.inventory.PutTenant(
            inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id="green"))
        )
        assert a.center.ledger.table.tenant("green") is None
        await wires.join()
        await until(lambda: a.center.ledger.table.tenant("green") is not None, 20.0)
        await until(lambda: a.center.ledger.freshness.stale_since_ms is None, 20.0)


async def test_agents_of_a_killed_replica_are_with_another_in_five_seconds(
    tmp_path: Path, cluster: Cluster
) -> None:
    """And what the killed one had acknowledged up to then, the other one has."""
    async with (
        replica_process(tmp_path, "a", cluster.address) as a,
        replica_process(tmp_path, "b", cluster.address),
        rpc.channel(f"unix:{tmp_path}/a.sock") as to_a,
        rpc.channel(f"unix:{tmp_path}/b.sock") as to_b,
        real_agent(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock"),
    ):
        operator = Client(to_b, "operator/alice")
        first = await attached_to(operator)
        acknowledged: list[str] = []
        writing = asyncio.create_task(
            put_tenants(Client(to_a, "operator/bob"), acknowledged.append)
        )
        await CLOCK.sleep(1.0)
        a.send_signal(signal.SIGKILL)
        async with asyncio.timeout(5.0):
            while await attached_to(operator) in ("", first):
                await CLOCK.sleep(0.02)
        await writing
        listed = await operator.inventory.ListTenants(inventory_pb2.ListTenantsRequest())
        assert len(acknowledged) > 10
        assert set(acknowledged) <= {tenant.tenant_id for tenant in listed.tenants}


async def put_tenants(operator: Client, acknowledged: Callable[[str], None]) -> None:
    """One after the other, until the vCenter is gone."""
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        for number in itertools.count():
            tenant = types.Tenant(tenant_id=f"t{number}")
            await operator.inventory.PutTenant(inventory_pb2.PutTenantRequest(tenant=tenant))
            acknowledged(tenant.tenant_id)


async def attached_to(operator: Client) -> str:
    answer = await operator.directory.ListServers(directory_pb2.ListServersRequest())
    return next((load.server.attached_to for load in answer.servers), "")
