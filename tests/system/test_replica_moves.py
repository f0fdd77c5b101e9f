"""A move whose vCenter dies, over real etcd: another one goes on with it from the ledger, and it is
carried out once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from common import rpc
from common.clock import SystemClock
from common.model.vm import VmState
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, operations_pb2, signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from deploy.etcd.members import Cluster
from tests.support.calls import Client
from tests.support.replicas import replica_process
from tests.system.agents import VM_ID, VNI, Host, a_vm, until
from vserver.hypervisor.memory import MemoryFleet
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.network.fabric import Fabric
from vserver.network.memory import MemoryNetwork

CLOCK = SystemClock()
VM = VM_ID.format(1)
WITHIN_S = 90.0


@pytest.fixture
async def cluster(tmp_path: Path, etcd_address: str) -> AsyncIterator[Cluster]:
    """`etcd_address` only says that there is an etcd to be had."""
    async with Cluster(tmp_path / "etcd", size=3) as cluster:
        yield cluster


async def declare(operator: Client) -> None:
    tenant = types.Tenant(tenant_id="acme")
    await operator.inventory.PutTenant(inventory_pb2.PutTenantRequest(tenant=tenant))
    network = types.VirtualNetwork(network_id="blue", tenant="acme", vnis=[VNI])
    await operator.inventory.PutNetwork(inventory_pb2.PutNetworkRequest(network=network))


def two_hosts(*targets: str) -> list[Host]:
    """A copy between them takes three seconds."""
    fleet, fabric = MemoryFleet(CLOCK, CopySpeed((128 << 20) / 3.0)), Fabric(CLOCK)
    hosts = []
    for number in (1, 2):
        network = MemoryNetwork(fabric.host(f"192.0.2.{number}"))
        host = Host(f"host-{number}", number, fleet.host(f"host-{number}"), network, fabric)
        host.boot(*targets)
        hosts.append(host)
    return hosts


def runs_on(hosts: list[Host]) -> list[str]:
    found = ((host.name, host.hypervisor.vms.get(VM)) for host in hosts)
    return [name for name, vm in found if vm is not None and vm.state is VmState.RUNNING]


async def attached_to(operator: Client) -> dict[str, str]:
    """Each host's replica; only of those that have one."""
    answer = await operator.directory.ListServers(directory_pb2.ListServersRequest())
    here = (load.server for load in answer.servers)
    return {s.server_id: s.attached_to for s in here if s.liveness == types.LIVENESS_ATTACHED}


async def both_attached(operator: Client) -> str:
    """The replica that both hosts are attached to, once they are to the same one."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = await attached_to(operator)
            if len(found) == 2 and len(set(found.values())) == 1:
                return found["host-1"]
            await CLOCK.sleep(0.05)


async def located(operator: Client) -> types.Location:
    key = types.VmKey(vm_id=VM)
    answer = await operator.signaling.Lookup(signaling_pb2.LookupRequest(keys=[key]))
    return answer.results[0].location


async def test_a_move_goes_on_when_its_vcenter_is_gone(tmp_path: Path, cluster: Cluster) -> None:
    """Killed in the midst of the copy: the one that was asked for the move, and that both hosts are
    attached to."""
    async with AsyncExitStack() as stack:
        asked = await stack.enter_async_context(replica_process(tmp_path, "a", cluster.address))
        hosts = two_hosts(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock")
        for host in hosts:
            stack.push_async_callback(host.kill)
        to_a = await stack.enter_async_context(rpc.channel(f"unix:{tmp_path}/a.sock"))
        operator = Client(to_a, "operator/alice")
        await declare(operator)
        hosts[0].hypervisor.create(a_vm())
        await until(lambda: len(hosts[0].open_ports()) == 1, WITHIN_S)
        await stack.enter_async_context(replica_process(tmp_path, "b", cluster.address))
        to_b = await stack.enter_async_context(rpc.channel(f"unix:{tmp_path}/b.sock"))
        other = Client(to_b, "operator/alice")
        before = await both_attached(other)
        reply = await operator.signaling.Relocate(
            signaling_pb2.RelocateRequest(vm_id=VM, destination="host-2")
        )
        await until(lambda: VM in hosts[1].hypervisor.vms, WITHIN_S)
        asked.send_signal(signal.SIGKILL)
        done = await ended(other, reply.operation.operation_id)
        assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
        assert await both_attached(other) != before
        location = await located(other)
        assert (location.server_id, location.epoch) == ("host-2", 2)
        assert runs_on(hosts) == ["host-2"] and len(hosts[1].open_ports()) == 1


async def ended(operator: Client, operation_id: str) -> operations_pb2.Operation:
    async with asyncio.timeout(WITHIN_S):
        while True:
            request = operations_pb2.GetOperationRequest(operation_id=operation_id)
            operation = await operator.operations.Get(request)
            if operation.done:
                return operation
            await CLOCK.sleep(0.05)
