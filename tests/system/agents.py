"""A real vCenter over loopback and real agents; only VMs and wires are in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from common import rpc
from common.clock import Clock, SystemClock
from common.model.operation import Receipt
from common.model.vm import Interface, Resources, Vm, VmState
from common.pb.vsignal.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.memory import MemoryStore
from vcenter.store.port import Store
from vserver.app import Agent, Parts
from vserver.config import AgentConfig
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.link import GrpcLink
from vserver.network.fabric import Fabric
from vserver.network.memory import MemoryNetwork
from vserver.state import MemoryState

OPERATOR = rpc.identity("operator/tester")
VM_ID = "6e7c5a52-0000-4000-8000-00000000{:04x}"
VNI = 1001


def a_vm(number: int = 1, tenant: str = "acme") -> Vm:
    """A VM of the tenant on VNI 1001, as its metadata would say."""
    high, low = divmod(number, 256)
    mac, ip = f"52:54:00:00:{high:02x}:{low:02x}", f"10.1.{high}.{low}"
    interface = Interface(mac, (ip,), "blue", VNI)
    interfaces = (interface,) if tenant else (Interface(interface.mac),)
    return Vm(VM_ID.format(number), f"vm{number}", tenant, "", interfaces, None, Resources(1, 128))


@dataclass
class Host:
    """What stays when the agent goes: the machine itself."""

    name: str
    number: int
    hypervisor: MemoryHypervisor
    network: MemoryNetwork
    fabric: Fabric
    state: MemoryState = field(default_factory=MemoryState)
    clock: Clock = field(default_factory=SystemClock)  # of agents that are booted from now on
    agent: Agent | None = None
    _task: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def vtep(self) -> str:
        return f"192.0.2.{self.number}"

    def open_ports(self) -> set[str]:
        """Devices whose port is open, as the data plane has it."""
        ports = self.fabric.host(self.vtep).ports
        return {device for device, port in ports.items() if port.is_open}

    def boot(self, *targets: str) -> Agent:
        """A fresh agent process on this machine, with several vCenters to choose from, or one."""
        config = AgentConfig.model_validate(
            {
                "server_id": self.name,
                "management_address": self.vtep,
                "vtep_address": self.vtep,
                "vcenter": targets,
                "plaintext": True,
                "state_dir": "/nowhere",
                "migration_uri": self.hypervisor.migration_uri,
            },
            strict=False,
        )
        links = [GrpcLink(target, self.name) for target in targets]
        parts = Parts(
            self.clock,
            links,
            self.hypervisor,
            self.network,
            self.state,
            "test",
            random.Random(1),
        )
        self.agent = Agent(config, parts)
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self.agent.run(self._stopping))
        return self.agent

    async def stop(self) -> None:
        """SIGTERM."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def kill(self) -> None:
        """SIGKILL, as far as a task can tell."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class World:
    """One vCenter, its hosts, and an operator."""

    def __init__(self, speed: CopySpeed, store: Store) -> None:
        self.clock = SystemClock()
        self.fleet = MemoryFleet(self.clock, speed)
        self.fabric = Fabric(self.clock)
        self.hosts: list[Host] = []
        self._store = store
        self._serving = AsyncExitStack()
        self.target = "127.0.0.1:0"

    async def serve(self) -> None:
        """Start the vCenter; again on the same port and store, if there was one."""
        config = Config(listen_plaintext=(self.target,), store="memory", drain_seconds=0)
        self.center = VCenter(config, self._store, self.clock)
        await self._serving.enter_async_context(self.center.running())
        self.target = f"127.0.0.1:{self.center.ports[0]}"
        self.channel = rpc.channel(self.target)
        self.inventory = inventory_pb2_grpc.InventoryStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)
        self.signaling = signaling_pb2_grpc.SignalingStub(self.channel)

    async def stop_serving(self) -> None:
        await self.channel.close()
        await self._serving.aclose()

    async def declare(self) -> None:
        """Tenant acme with the network blue."""
        tenant = types_pb2.Tenant(tenant_id="acme")
        await self.inventory.PutTenant(
            inventory_pb2.PutTenantRequest(tenant=tenant), metadata=OPERATOR
        )
        network = types_pb2.VirtualNetwork(network_id="blue", tenant="acme", vnis=[VNI])
        await self.inventory.PutNetwork(
            inventory_pb2.PutNetworkRequest(network=network), metadata=OPERATOR
        )

    async def host(self) -> Host:
        """A machine with an agent, attached."""
        number = len(self.hosts) + 1
        name = f"host-{number}"
        network = MemoryNetwork(self.fabric.host(f"192.0.2.{number}"))
        host = Host(name, number, self.fleet.host(name), network, self.fabric)
        self.hosts.append(host)
        host.boot(self.target)
        await self.attached(host)
        return host

    async def attached(self, host: Host) -> None:
        await until(lambda: host.agent is not None and host.agent.wanted.in_step)

    def owner(self, number: int = 1) -> str:
        """The ledger's word on where the VM is; "" if it knows no such VM."""
        record = self.center.ledger.table.vm(VM_ID.format(number))
        return record.location.server_id if record is not None else ""

    def epoch(self, number: int = 1) -> int:
        record = self.center.ledger.table.vm(VM_ID.format(number))
        return record.location.epoch if record is not None else 0

    def receipt(self, operation: operations_pb2.Operation) -> Receipt:
        """As it is in the ledger now."""
        return self.center.ledger.table.must_operation(operation.operation_id).receipt

    def state(self, number: int = 1) -> VmState | None:
        """The ledger's word."""
        record = self.center.ledger.table.vm(VM_ID.format(number))
        return record.location.state if record is not None else None

    async def relocate(
        self, number: int, to: Host, kind: int = operations_pb2.MOVE_KIND_LIVE
    ) -> operations_pb2.Operation:
        """Ask for a move; it is under way when this returns."""
        request = signaling_pb2.RelocateRequest(
            vm_id=VM_ID.format(number), destination=to.name, kind=kind
        )
        reply = await self.signaling.Relocate(request, metadata=OPERATOR)
        return reply.operation

    async def done(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        request = operations_pb2.WaitOperationRequest(operation_id=operation.operation_id)
        return await self.operations.Wait(request, metadata=OPERATOR, timeout=60)

    async def reached(self, operation: operations_pb2.Operation, phase: int) -> None:
        """Wait until it is in this phase, or past it."""
        request = operations_pb2.GetOperationRequest(operation_id=operation.operation_id)
        async for seen in self.operations.Follow(request, metadata=OPERATOR, timeout=30):
            if any(entered.phase == phase for entered in seen.phases):
                return

    def running_on(self, number: int = 1) -> list[str]:
        """Where the VM really runs (I1)."""
        vm_id = VM_ID.format(number)
        return [
            host.name
            for host in self.hosts
            if (vm := host.hypervisor.vms.get(vm_id)) and vm.state is VmState.RUNNING
        ]

    async def close(self) -> None:
        for host in self.hosts:
            await host.kill()
        await self.stop_serving()


@asynccontextmanager
async def world(copy_seconds: float = 0.1, store: Store | None = None) -> AsyncIterator[World]:
    """`copy_seconds`: how long the memory of a VM travels."""
    made = World(CopySpeed(128 * 1024 * 1024 / copy_seconds), store or MemoryStore())
    await made.serve()
    try:
        await made.declare()
        yield made
    finally:
        await made.close()


async def until(true: Callable[[], bool], within: float = 10.0) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110 - many places, and none of them rings
            await asyncio.sleep(0.01)
