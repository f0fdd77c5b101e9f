"""Hypervisor hosts whose guests outlive every process of ours, with what can happen to a copy.

The outcomes are those that were seen with QEMU and libvirt: the other side dies in the middle or at
the gate, the word that it went well is lost and the source runs on beside a whole copy, nobody is
left, or all went well and nobody is told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum

from common.errors import Refusal
from common.model.operation import Progress
from common.model.vm import Resources, VmState
from deploy.simulation.journal import Journal
from deploy.simulation.loop import Process
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.hypervisor.memory_copy import MemoryCopy
from vserver.hypervisor.memory_host import refused
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.metadata import AttachmentRules
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms
from vserver.network.fabric import MemoryHost as FabricHost

CAPACITY = Resources(vcpus=64, memory_mib=65536)
GIVES_UP_AFTER_S = 4.0  # an adaptor that gets no answer


class Fate(StrEnum):
    """What becomes of one copy."""

    GOOD = "good"
    BROKEN = "breaks off"
    KILLED_WHILE_COPYING = "destination killed while copying"
    KILLED_AT_THE_GATE = "destination killed at the gate"
    FINISH_LOST = "the source never hears that it went well, and runs on"
    NOBODY = "destination killed when the source was gone"
    UNHEARD = "goes well, and nobody is told"
    LEFT_ALONE = "goes on after the caller gave up"


class Fleet(MemoryFleet):
    """All machines; `looked` is called after everything that happens to a guest."""

    def __init__(
        self,
        kernel: Process,
        clock: object,
        chance: random.Random,
        journal: Journal,
        looked: Callable[[Machine, str], None],
    ) -> None:
        super().__init__(clock, CopySpeed(bytes_per_second=3e8, steps=6, downtime=0.02))  # type: ignore[arg-type]
        self.kernel = kernel
        self.chance = chance
        self.journal = journal
        self.looked = looked

    def machine(self, name: str, wires: FabricHost) -> Machine:
        made = Machine(self, name, wires)
        self.hosts[made.migration_uri] = made
        return made


class Machine(MemoryHypervisor):
    """One host: its hypervisor, its guests, their taps. Agents come and go on it."""

    _fleet: Fleet

    def __init__(self, fleet: Fleet, name: str, wires: FabricHost) -> None:
        super().__init__(fleet, name, CAPACITY, AttachmentRules())
        self.wires = wires
        self.next_fate = Fate.GOOD
        self.hangs = False  # libvirtd takes requests, and does not answer
        self.waiting: list[Callable[[], object]] = []  # what it will do when it works again
        self._plugged: dict[str, set[str]] = {}

    def changed(self, vm_id: str) -> None:
        super().changed(vm_id)
        self._wire(vm_id)
        vm = self.vms.get(vm_id)
        state = "gone" if vm is None else vm.state.value + (", arrived" if vm.arrived else "")
        self._fleet.journal.say(self.name, f"guest {short(vm_id)} {state}")
        self._fleet.looked(self, vm_id)

    def _wire(self, vm_id: str) -> None:
        """QEMU makes its taps, and they go with it."""
        vm = self.vms.get(vm_id)
        taps = {t.device for t in vm.described.taps if t.device} if vm and vm.active else set()
        before = self._plugged.get(vm_id, set())
        for device in sorted(before - taps):
            self.wires.unplug(device)
        for device in sorted(taps - before):
            self.wires.plug(device)
        self._plugged[vm_id] = taps

    def kill_guest(self, vm_id: str) -> None:
        """QEMU dies: what was defined is off, what only arrived is gone."""
        self.stop(vm_id)

    def crash(self) -> None:
        before = list(self.vms)
        super().crash()
        for vm_id in before:
            self.changed(vm_id)

    def hang(self) -> None:
        self._fleet.journal.say(self.name, "libvirtd hangs")
        self.hangs = True

    def recover(self) -> None:
        """It works again, beginning with what waits."""
        if self.hangs:
            self._fleet.journal.say(self.name, "libvirtd answers again")
            self.hangs = False
            waiting, self.waiting = self.waiting, []
            for act in waiting:
                act()

    def do_late(self, name: str, args: tuple[object, ...]) -> None:
        """A request whose caller has given up."""
        self._fleet.journal.say(self.name, f"does late: {name} {short(str(args[0]))}")
        self._fleet.kernel.spawn(self._quietly(getattr(self, name)(*args)))

    async def _quietly(self, act: Awaitable[object]) -> None:
        with suppress(Refusal):
            await act

    @property
    def copying(self) -> frozenset[str]:
        return frozenset(self._copies)

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        """The copy is the hypervisors' own: it goes on without the agent that asked for it."""
        self._ask()
        vm, there = self.vms.get(vm_id), self._fleet.hosts.get(destination_uri)
        if vm is None or vm.state is not VmState.RUNNING or vm_id in self._copies:
            raise refused(f"VM {vm_id} does not run here, or is being copied already")
        if not isinstance(there, Machine) or there is self or not there.reachable:
            raise refused(f"unable to connect to {destination_uri!r}")
        fate, self.next_fate = self.next_fate, Fate.GOOD
        copy = Copy(self._fleet, vm, self, there, fate, terms)
        self._copies[vm_id] = copy
        self._fleet.journal.say(self.name, f"copies {short(vm_id)} to {there.name}: {fate.value}")
        going = self._fleet.kernel.spawn(self._carry(copy, vm_id, devices, progress))
        if fate is Fate.LEFT_ALONE:
            await asyncio.sleep(self._fleet.chance.uniform(0, 0.5))
            raise TimeoutError("no answer from libvirtd")
        result = await asyncio.shield(going)
        if isinstance(result, Exception):
            raise result
        return result

    async def _carry(
        self,
        copy: Copy,
        vm_id: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
    ) -> Copied | Exception:
        try:
            return await copy.run(devices, progress)
        except Exception as error:  # noqa: BLE001 - for whoever still listens
            self._fleet.journal.say(self.name, f"copy of {short(vm_id)} ended: {error}")
            return error
        finally:
            del self._copies[vm_id]
            copy.ended.set()


class Copy(MemoryCopy):
    """A copy that comes to the end that fate has for it."""

    def __init__(
        self,
        fleet: Fleet,
        vm: MemoryVm,
        source: Machine,
        destination: Machine,
        fate: Fate,
        terms: CopyTerms,
    ) -> None:
        super().__init__(fleet.clock, fleet.speed, vm, source, destination, terms)
        self._chance = fleet.chance
        self._fate = fate
        self._killed_at = fleet.chance.random()
        if fate is Fate.BROKEN:
            self._fault = ("migration failed: broken pipe", fleet.chance.random())

    async def run(self, devices: Mapping[str, str], progress: Callable[[Progress], None]) -> Copied:
        destination, source, vm_id = self._destination, self._source, self._vm.vm.vm_id
        there = destination.vms.get(vm_id)
        if there and there.active:
            raise refused("the domain is already active at the destination")
        arriving = self._vm.at_destination(devices)
        destination.vms[vm_id] = arriving
        destination.changed(vm_id)
        try:
            copied = await self._transfer(arriving, progress)
            arriving.arrived = True
            destination.changed(vm_id)
            await self._handshake(arriving)
        except BaseException:
            self._undo(arriving)
            raise
        source.drop(vm_id)
        if self._fate is Fate.NOBODY and destination.vms.get(vm_id) is arriving:
            await self._clock.sleep(self._chance.uniform(0, 0.05))
            if arriving.state is VmState.INCOMING and destination.vms.get(vm_id) is arriving:
                destination.drop(vm_id)
        if self._fate is Fate.UNHEARD:
            raise TimeoutError("no answer from libvirtd")
        return copied

    async def _handshake(self, arriving: MemoryVm) -> None:
        """Both QEMUs have everything and neither runs; the source goes when it hears so."""
        await self._clock.sleep(self._chance.uniform(0, 0.01))
        if self._fate is Fate.FINISH_LOST and self._vm.active:
            self._vm.state = VmState.RUNNING
            self._source.changed(self._vm.vm.vm_id)
            raise TimeoutError("no answer to Finish")
        self._check(arriving)

    def _check(self, arriving: MemoryVm) -> None:
        vm_id = self._vm.vm.vm_id
        at_the_gate = self._vm.state is VmState.PAUSED
        killed = (self._fate is Fate.KILLED_AT_THE_GATE and at_the_gate) or (
            self._fate is Fate.KILLED_WHILE_COPYING and self._share >= self._killed_at
        )
        if killed and self._destination.vms.get(vm_id) is arriving:
            self._destination.drop(vm_id)
        super()._check(arriving)

    def _undo(self, arriving: MemoryVm) -> None:
        if self._fate is not Fate.FINISH_LOST or not arriving.arrived:
            super()._undo(arriving)


def short(vm_id: str) -> str:
    """The end of a vm_id, which is what they differ in."""
    return f"vm{int(vm_id[-4:])}"
