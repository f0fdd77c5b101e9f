"""Everything that a seed runs: vCenters with their disks, and hosts with their agents.

The daemons are the real ones, composed as they compose themselves. What stands here in the place of
sockets, disks, libvirt and netlink is handed to them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc.aio

from deploy.simulation.adaptors import HypervisorWay, NetworkWay, StateOnDisk
from deploy.simulation.center import Center, Site
from deploy.simulation.channel import Channel
from deploy.simulation.gated import GatedWay, Notes
from deploy.simulation.ground import Ground
from deploy.simulation.journal import Journal
from deploy.simulation.loop import Process, VirtualLoop
from deploy.simulation.machines import Fleet, Machine
from vserver.app import Agent, Parts
from vserver.config import AgentConfig
from vserver.hypervisor.port import Hypervisor
from vserver.link import GrpcLink
from vserver.network.fabric import Fabric
from vserver.network.memory import MemoryNetwork
from vserver.network.port import Network as NetworkPort

WRITES_EVERY_S = 0.25


@dataclass
class Host:
    """One machine and, most of the time, an agent on it."""

    name: str
    number: int
    center: Center
    machine: Machine
    network: MemoryNetwork
    state: StateOnDisk
    notes: Notes
    process: Process | None = None
    agent: Agent | None = None
    hypervisor: HypervisorWay | None = None
    wires: NetworkWay | None = None
    stopping: asyncio.Event | None = None
    plugged: bool = True  # otherwise there will be no power for it

    @property
    def vtep(self) -> str:
        return f"192.0.2.{self.number}"


class World(Ground):
    """`sites`: its vCenters; alone, unless more are given."""

    def __init__(
        self, seed: int, loop: VirtualLoop, journal: Journal, sites: Iterable[Site] = (Site(),)
    ) -> None:
        super().__init__(seed, loop, journal)
        self.centers = {
            site.domain: Center(self, site, random.Random(_seed_of_disk(seed, site)))
            for site in sites
        }
        machines = random.Random(f"{seed}/machines")
        truth = self.truth
        self.fleet = Fleet(
            self.kernel,
            self.clock,
            machines,
            journal,
            truth.guest,
            self._adopted,
            self._started,
            truth.writings,
        )
        self.fabric = Fabric(self.clock, plugs_itself=False)
        self.hosts: dict[str, Host] = {}

    @property
    def center(self) -> Center:
        """The first one; the only one, where there is one."""
        return next(iter(self.centers.values()))

    def _adopted(self, machine: Machine, vm_id: str) -> None:
        heard = self.hosts[machine.name].center.laws.promoted(machine.name, vm_id)
        self.truth.writings.adopted(machine, vm_id, heard)

    def _started(self, machine: Machine, vm_id: str) -> None:
        self.hosts[machine.name].center.laws.started(machine.name, vm_id)

    def write(self) -> None:
        """All guests that run do, from now on."""
        self.truth.writings.go_on()
        self.kernel.after(WRITES_EVERY_S, self.write)

    # ---- hosts and their agents ----

    def add_host(self, center: Center, name: str = "", *, gated: bool = False) -> Host:
        """Names are one host's each, in all domains."""
        number = len(self.hosts) + 1
        name, vtep = name or f"host-{number}", f"192.0.2.{number}"
        wires = self.fabric.host(vtep)
        machine = self.fleet.machine(name, wires)
        state = StateOnDisk(random.Random(self.chance.random()))
        machine.gated = gated
        notes = Notes(random.Random(self.chance.random()))
        host = Host(name, number, center, machine, MemoryNetwork(wires), state, notes)
        self.hosts[name] = host
        self.truth.machines[name] = machine
        return host

    def boot_agent(self, host: Host) -> None:
        """Unless there is one, or no power."""
        if not host.machine.powered or (host.process is not None and host.process.alive):
            return
        process = host.process = self.process(host.name)
        clock, center = self.new_clock(), host.center
        chance = random.Random(self.chance.random())
        host.hypervisor = (
            GatedWay(host.machine, chance, process, clock, host.notes)
            if host.machine.gated
            else HypervisorWay(host.machine, chance)
        )
        host.wires = NetworkWay(host.network, chance, lambda p: center.laws.opened(host.name, p))
        link = GrpcLink(center.address, host.name, lambda _: self.channel(host.name, center))
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
        self.owned(process, host.agent.run(host.stopping), lambda: self.boot_agent(host))

    def power_cut(self, host: Host) -> None:
        """Everything on it ends at once."""
        host.machine.crash()
        host.notes.power_cut()
        if host.process is not None:
            host.process.kill()
        self.network.cut(host.name, host.center.address)

    def power_on(self, host: Host) -> None:
        """Unless it has power, or the plug is out."""
        if host.plugged and not host.machine.powered:
            self.journal.say(host.name, "has power again")
            host.machine.boot()
            self.boot_agent(host)

    def unplug(self, host: Host) -> None:
        host.plugged = False
        if host.machine.powered:
            self.power_cut(host)

    def plug(self, host: Host) -> None:
        host.plugged = True
        self.power_on(host)

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
            "vcenter": (host.center.address,),
            "plaintext": True,
            "state_dir": "/nowhere",
            "migration_uri": host.machine.migration_uri,
        }
        return AgentConfig.model_validate(said, strict=False)

    def channel(self, name: str, center: Center) -> grpc.aio.Channel:
        """From a machine to a vCenter."""

        def ear(method: str, message: bytes) -> None:
            center.laws.heard(name, method, message)

        ends = (name, center.address)
        return cast(grpc.aio.Channel, Channel(self.network, self.servers, ends, ear))


def _seed_of_disk(seed: int, site: Site) -> str:
    return f"{seed}/disk" if not site.domains else f"{seed}/disk/{site.domain}"
