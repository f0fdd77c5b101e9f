"""Everything that a seed runs: one vCenter, its disk, hosts with their agents, and people.

The daemons are the real ones, composed as they compose themselves. What stands here in the place of
sockets, disks, libvirt and netlink is handed to them.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc.aio

from common.errors import Refusal
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, operations_pb2, session_pb2
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from deploy.simulation.adaptors import HypervisorWay, NetworkWay, StateOnDisk
from deploy.simulation.channel import Channel
from deploy.simulation.clock import VirtualClock
from deploy.simulation.disk import Disk
from deploy.simulation.journal import Journal
from deploy.simulation.laws import Laws
from deploy.simulation.loop import Process, VirtualLoop
from deploy.simulation.machines import Fleet, Machine
from deploy.simulation.network import Network
from deploy.simulation.server import Server, Servers
from vcenter.app import VCenter
from vcenter.config import Config
from vserver.app import Agent, Parts
from vserver.config import AgentConfig
from vserver.hypervisor.port import Hypervisor
from vserver.link import GrpcLink
from vserver.network.fabric import Fabric
from vserver.network.memory import MemoryNetwork
from vserver.network.port import Network as NetworkPort

CENTER = "unix:/vcenter"  # so that who calls is believed without certificates
LEASE_S = 10.0
RESTART_S = (0.2, 2.0)  # systemd's RestartSec, and what a start takes

_REPLIES = {
    f"/{service.full_name}/{method.name}": method.output_type
    for module in (signaling, session_pb2, directory_pb2, operations_pb2, inventory_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass
class Host:
    """One machine and, most of the time, an agent on it."""

    name: str
    number: int
    machine: Machine
    network: MemoryNetwork
    state: StateOnDisk
    process: Process | None = None
    agent: Agent | None = None
    hypervisor: HypervisorWay | None = None
    wires: NetworkWay | None = None
    stopping: asyncio.Event | None = None

    @property
    def vtep(self) -> str:
        return f"192.0.2.{self.number}"


class World:
    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        self.loop = loop
        self.journal = journal
        self.chance = random.Random(f"{seed}/world")
        self.processes: list[Process] = []
        self.kernel = self.process("kernel")
        self._clocks: list[VirtualClock] = []
        self._offset = 0.0  # of the wall clocks
        self.clock = self._new_clock()
        self.laws = Laws(journal, loop.time)
        self.network = Network(self.kernel, random.Random(f"{seed}/network"), journal)
        self.servers = Servers()
        self.disk = self.laws.disk = Disk(random.Random(f"{seed}/disk"), self.laws.written)
        machines = random.Random(f"{seed}/machines")
        self.fleet = Fleet(self.kernel, self.clock, machines, journal, self.laws.guest)
        self.fabric = Fabric(self.clock, plugs_itself=False)
        self.hosts: dict[str, Host] = {}
        self.center: Process | None = None
        self.vcenter: VCenter | None = None
        self._center_stopping: asyncio.Event | None = None
        self.ids = random.Random(f"{seed}/ids")

    def process(self, name: str) -> Process:
        made = Process(self.loop, name)
        self.processes.append(made)
        return made

    def _new_clock(self) -> VirtualClock:
        clock = VirtualClock(self.loop)
        clock.offset = self._offset
        self._clocks.append(clock)
        return clock

    def set_clocks(self, jump: float) -> None:
        """Every wall clock is set at once."""
        self._offset += jump
        for clock in self._clocks:
            clock.offset = self._offset

    def defect(self, text: str) -> None:
        """Something that no fault excuses."""
        self.journal.violated("defect", text)

    # ---- the vCenter ----

    def boot_center(self) -> None:
        process = self.center = self.process("vcenter")
        clock = self._new_clock()
        config = Config(
            listen_plaintext=(CENTER,), store="memory", lease_seconds=LEASE_S, drain_seconds=0.5
        )
        vcenter = VCenter(
            config,
            self.disk,
            clock,
            new_id=self.new_id,
            make_server=lambda: self._server(process),
        )
        self.vcenter = vcenter
        stopping = self._center_stopping = asyncio.Event()
        process.mourners.append(lambda: self._center_died(process))
        self.journal.say("vcenter", "starts")
        self._owned(process, self._serve(vcenter, stopping), self.boot_center)

    def _server(self, process: Process) -> grpc.aio.Server:
        made = Server(process, self.servers, self._said, self.defect)
        return cast(grpc.aio.Server, made)

    def _said(self, method: str, message: bytes) -> None:
        kind = _REPLIES.get(method)
        if kind is not None:
            self.laws.said(method, kind._concrete_class.FromString(message))

    async def _serve(self, vcenter: VCenter, stopping: asyncio.Event) -> None:
        async with vcenter.running():
            await stopping.wait()

    def _center_died(self, process: Process) -> None:
        lost = self.disk.lose_power()
        self.journal.say("vcenter", f"killed; {lost} unsynchronized writes lost")

    def stop_center(self) -> None:
        """SIGTERM; systemd starts it again."""
        if self._center_stopping is not None:
            self.journal.say("vcenter", "is asked to stop")
            self._center_stopping.set()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.ids.getrandbits(128), version=4))

    # ---- hosts and their agents ----

    def add_host(self) -> Host:
        number = len(self.hosts) + 1
        name, vtep = f"host-{number}", f"192.0.2.{number}"
        wires = self.fabric.host(vtep)
        machine = self.fleet.machine(name, wires)
        state = StateOnDisk(random.Random(self.chance.random()))
        host = Host(name, number, machine, MemoryNetwork(wires), state)
        self.hosts[name] = host
        self.laws.machines[name] = machine
        return host

    def boot_agent(self, host: Host) -> None:
        """Unless there is one, or no power."""
        if not host.machine.powered or (host.process is not None and host.process.alive):
            return
        process = host.process = self.process(host.name)
        clock = self._new_clock()
        chance = random.Random(self.chance.random())
        host.hypervisor = HypervisorWay(host.machine, chance)
        host.wires = NetworkWay(host.network, chance, lambda p: self.laws.opened(host.name, p))
        link = GrpcLink(CENTER, host.name, lambda _: self.channel(host.name))
        parts = Parts(
            clock,
            [link],
            cast(Hypervisor, host.hypervisor),
            cast(NetworkPort, host.wires),
            host.state,
            "simulated",
            chance,
        )
        host.agent = Agent(self._config(host), parts)
        host.stopping = asyncio.Event()
        process.mourners.append(lambda: self.journal.say(host.name, "agent killed"))
        self.journal.say(host.name, "agent starts")
        self._owned(process, host.agent.run(host.stopping), lambda: self.boot_agent(host))

    def stop_agent(self, host: Host) -> None:
        """SIGTERM; systemd starts it again."""
        if host.stopping is not None:
            self.journal.say(host.name, "is asked to stop")
            host.stopping.set()

    def _config(self, host: Host) -> AgentConfig:
        said = {
            "server_id": host.name,
            "management_address": host.vtep,
            "vtep_address": host.vtep,
            "vcenter": (CENTER,),
            "plaintext": True,
            "state_dir": "/nowhere",
            "migration_uri": host.machine.migration_uri,
        }
        return AgentConfig.model_validate(said, strict=False)

    def channel(self, name: str) -> grpc.aio.Channel:
        """From a machine to the vCenter."""

        def ear(method: str, message: bytes) -> None:
            self.laws.heard(name, method, message)

        return cast(grpc.aio.Channel, Channel(self.network, self.servers, (name, CENTER), ear))

    # ---- processes end, and systemd starts them again ----

    def _owned(self, process: Process, main: Any, again: Callable[[], None]) -> None:
        task = process.spawn(main)
        task.add_done_callback(lambda t: self._ended(process, t))
        process.mourners.append(lambda: self._restart_later(process, again))
        process.keep(task)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        """A daemon that ends by itself has failed, or was asked to."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not _is_expected(error):
            self.defect(f"{process.name} failed: {error!r}")
        self.journal.say(process.name, "process ended" + (f": {error}" if error else ""))
        process.kill()

    def _restart_later(self, process: Process, again: Callable[[], None]) -> None:
        self.kernel.after(self.chance.uniform(*RESTART_S), again)


def _is_expected(error: BaseException) -> bool:
    """Daemons end when what they are handed cannot be opened; they are started again."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_expected(e) for e in error.exceptions)
    return isinstance(error, Refusal | TimeoutError | OSError)
