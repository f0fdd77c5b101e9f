"""A hypervisor without a machine: the same semantics as libvirt's, on the injected clock.

For the demo's memory mode, tests of everything above, and simulation: no threads, no time of its
own. A `MemoryFleet` joins hosts by migration URI (`memory://NAME`). What people do with
virsh, and the faults that tests switch on, are in `memory_host`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from common.clock import Clock
from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, Progress
from common.model.server import ServerStatus
from common.model.vm import Resources, VmState
from vserver.hypervisor import memory_cold
from vserver.hypervisor.changes import Changes
from vserver.hypervisor.memory_cold import HandOver
from vserver.hypervisor.memory_copy import MemoryCopy
from vserver.hypervisor.memory_host import MemoryHost, refused
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.memory_standby import MemoryStandbys
from vserver.hypervisor.metadata import AttachmentRules
from vserver.hypervisor.port import (
    NO_LUGGAGE,
    PLAIN,
    Copied,
    CopyTerms,
    HostedVm,
    HostFacts,
    Luggage,
    VmUsage,
)
from vserver.hypervisor.standby import Standbys

SCHEME = "memory://"
_CAPACITY = Resources(vcpus=64, memory_mib=262144)


class MemoryFleet:
    """The hosts that can reach each other."""

    def __init__(self, clock: Clock, speed: CopySpeed | None = None) -> None:
        self.clock = clock
        self.speed = speed or CopySpeed()
        self.hosts: dict[str, MemoryHypervisor] = {}

    def host(
        self, name: str, capacity: Resources = _CAPACITY, rules: AttachmentRules | None = None
    ) -> MemoryHypervisor:
        """A new host; its migration URI is `memory://name`."""
        host = MemoryHypervisor(self, name, capacity, rules or AttachmentRules())
        self.hosts[host.migration_uri] = host
        return host


class MemoryHypervisor(MemoryHost):
    """`Hypervisor` on one host of a fleet."""

    def __init__(
        self, fleet: MemoryFleet, name: str, capacity: Resources, rules: AttachmentRules
    ) -> None:
        super().__init__(name, rules)
        self.migration_uri = SCHEME + name
        self._fleet = fleet
        self._capacity = capacity
        self._copies: dict[str, MemoryCopy] = {}
        self._given: dict[str, HandOver] = {}
        self._figures: dict[str, Copied] = {}  # of live copies, until they are asked for

    @property
    def standbys(self) -> Standbys | None:
        fleet = self._fleet
        return MemoryStandbys(self, fleet.clock, fleet.speed.bytes_per_second, self._peer)

    @property
    def carries_disks(self) -> bool:
        return True

    async def open(self) -> None:
        self._ask()
        self.changes = Changes()

    async def close(self) -> None:
        self.changes.close()

    async def facts(self) -> HostFacts:
        self._ask()
        return HostFacts("memory", "1", self._capacity, "memory", "none")

    async def list(self) -> Sequence[HostedVm]:
        self._ask()
        return [vm.hosted() for vm in self.vms.values()]

    async def get(self, vm_id: str) -> HostedVm | None:
        self._ask()
        vm = self.vms.get(vm_id)
        return vm.hosted() if vm else None

    def events(self) -> AsyncIterator[str]:
        return self.changes

    async def usage(self) -> tuple[ServerStatus, Mapping[str, VmUsage]]:
        """Every VM is idle, and holds all of its memory while it runs."""
        self._ask()
        used = {i: v.vm.resources.memory_mib if v.active else 0 for i, v in self.vms.items()}
        total = self._capacity.memory_mib
        status = ServerStatus(0.0, max(total - sum(used.values()), 0), total)
        return status, {
            vm_id: VmUsage(0.0, mib, disks=self.disks.sizes(self.vms[vm_id].described.disks))
            for vm_id, mib in used.items()
        }

    async def hosted(self, vm_id: str) -> HostedState:
        if not self.reachable:
            return HostedState.UNKNOWN
        vm = self.vms.get(vm_id)
        return HostedState.RUNNING if vm and vm.active else HostedState.ABSENT

    async def shut_down(self, vm_id: str) -> bool:
        """A copy that has left leaves nothing, so whatever is here and off was shut down."""
        self._ask()
        vm = self.vms.get(vm_id)
        return vm is not None and not vm.active

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        self._ask()
        vm = self.vms.get(vm_id)
        if vm is None or vm.state is not VmState.RUNNING:
            raise refused(f"VM {vm_id} does not run here")
        if vm_id in self._copies:
            raise refused(f"VM {vm_id} is being copied already")
        destination = self._peer(destination_uri)
        copy = MemoryCopy(self._fleet.clock, self._fleet.speed, vm, self, destination, terms)
        self._copies[vm_id] = copy
        try:
            copied = await copy.run(devices, progress)
        finally:
            del self._copies[vm_id]
            copy.ended.set()
        return self._figured(vm_id, copied, terms)

    def _figured(self, vm_id: str, copied: Copied, terms: CopyTerms) -> Copied:
        """What is told at once of a copy that went well."""
        if terms.kind is not MoveKind.LIVE or not self._fleet.speed.figures_after:
            return copied
        self._figures[vm_id] = copied
        return replace(copied, downtime_ms=0.0)

    async def last_figures(self, vm_id: str) -> Copied | None:
        if vm_id not in self._figures:
            return None
        await self._fleet.clock.sleep(self._fleet.speed.figures_after)
        return self._figures.pop(vm_id, None)

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        self._ask()
        self.disks.make(vm_id, disks)
        return self.taking.setdefault(vm_id, next(self.ports))

    async def hand_over(
        self, vm_id: str, destination_uri: str, luggage: Luggage = NO_LUGGAGE
    ) -> None:
        self._ask()
        if vm_id in self._given:
            raise refused(f"VM {vm_id} is being handed over already")
        there, fleet = self._peer(destination_uri), self._fleet
        self._given[vm_id] = HandOver(fleet.clock, fleet.speed, self, there)
        try:
            await self._given[vm_id].run(vm_id, luggage)
        finally:
            del self._given[vm_id]

    async def settle(self, vm_id: str) -> None:
        self._ask()
        self.taking.pop(vm_id, None)
        self.disks.keep(vm_id)

    async def keeps(self, vm_id: str) -> bool:
        self._ask()
        return vm_id in self.vms

    async def ask_off(self, vm_id: str) -> None:
        self._ask()
        memory_cold.ask_off(vm_id, self)

    async def power_on(self, vm_id: str) -> None:
        self._ask()
        memory_cold.power_on(vm_id, self)

    async def abort(self, vm_id: str) -> None:
        self._ask()
        if given := self._given.get(vm_id):
            given.called_off = True
        if copy := self._copies.get(vm_id):
            copy.abort()
            await copy.ended.wait()

    async def make_way(self, vm_id: str, disks: Sequence[Disk] = ()) -> None:
        """A copy that has left leaves nothing; who took a standby's disks may be left."""
        self.stop_receiving(vm_id)
        self.taking.pop(vm_id, None)
        if disks:
            self._ask()
            self.disks.make(vm_id, disks)

    async def drop_disks(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """All files of a `memory` host are its own; those that another VM has stay."""
        self._ask()
        vm = self.vms.get(vm_id)
        if vm is not None and vm.active:
            raise refused(f"VM {vm_id} is {vm.state} here; its disks are not removed")
        others = [v.described.disks for i, v in self.vms.items() if i != vm_id]
        used = {disk.path for each in others for disk in each}
        self.disks.remove(disk.path for disk in disks if disk.path not in used)

    async def hold(self, vm_id: str) -> bool:
        """Its copies wait for nobody but `resume`."""
        return False

    def kept(self) -> Collection[str]:
        return ()

    async def give_up(self, vm_id: str) -> None:
        """It keeps nothing from running."""

    async def resume(self, vm_id: str) -> None:
        self._ask()
        vm = self.vms.get(vm_id)
        if vm is None or not vm.active:
            raise refused(f"VM {vm_id} is not here, or off")
        if vm.state is VmState.INCOMING and not vm.arrived:
            raise refused("the VM's memory is still arriving")
        self.disks.keep(vm_id)
        if vm.state is not VmState.RUNNING:
            vm.state, vm.arrived = VmState.RUNNING, False
            self.changed(vm_id)

    async def discard(self, vm_id: str) -> None:
        self._ask()
        vm = self.vms.get(vm_id)
        if vm is not None:
            if vm.state not in (VmState.INCOMING, VmState.SHUT_OFF):
                raise refused(f"the VM is {vm.state} here; it is not discarded")
            self.drop(vm_id)
        self.taking.pop(vm_id, None)
        self.disks.clear(vm_id)

    def _peer(self, uri: str) -> MemoryHypervisor:
        found = self._fleet.hosts.get(uri)
        if found is None or found is self or not found.reachable:
            raise refused(f"unable to connect to {uri!r}")
        return found

    def _ask(self) -> None:
        if not self.reachable:
            raise refused(f"the hypervisor of {self.name} does not answer")
