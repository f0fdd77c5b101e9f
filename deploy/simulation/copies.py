"""What can happen to a copy between two machines.

The outcomes are those that were seen with QEMU and libvirt: the other side dies in the middle or at
the gate, the word that it went well is lost and the source runs on beside a whole copy, nobody is
left, or all went well and nobody is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from common.model.operation import Progress
from common.model.vm import VmState
from vserver.hypervisor.memory_copy import MemoryCopy
from vserver.hypervisor.memory_host import refused
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.port import Copied, CopyTerms

if TYPE_CHECKING:
    from deploy.simulation.machines import Fleet, Machine

KEEPER_DIES = 0.5  # how often, while the source's libvirt waits for a word that is lost
NOTICED_WITHIN_S = 6.0


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
        self._fleet = fleet
        self._from, self._to = source, destination
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
        destination.disks.check(self._vm.described.disks)
        arriving = self._vm.at_destination(devices)
        destination.vms[vm_id] = arriving
        destination.changed(vm_id)
        try:
            copied = await self._transfer(arriving, progress)
            arriving.arrived = True
            destination.changed(vm_id)
            await self._handshake(arriving)
        except BaseException:
            await self._go_back(arriving)
            raise
        if source.vms.get(vm_id) is self._vm:
            source.drop(vm_id)
        if self._fate is Fate.NOBODY and destination.vms.get(vm_id) is arriving:
            await self._clock.sleep(self._chance.uniform(0, 0.05))
            if destination.vms.get(vm_id) is arriving:
                self._kill(arriving)
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

    def _kill(self, arriving: MemoryVm) -> None:
        if arriving.state is VmState.INCOMING:
            self._destination.drop(arriving.vm.vm_id)

    async def _go_back(self, arriving: MemoryVm) -> None:
        self._undo(arriving)

    def _undo(self, arriving: MemoryVm) -> None:
        if self._fate is not Fate.FINISH_LOST or not arriving.arrived:
            super()._undo(arriving)


class GatedCopy(Copy):
    """Both libvirts ask their lock managers: the source's is told that its guest stands still, the
    destination's is asked before it runs there, and the source's before it runs on."""

    _stopped: asyncio.Task[str]

    def _stand_still(self) -> None:
        vm_id = self._vm.vm.vm_id
        self._from.at_gate.add(vm_id)
        super()._stand_still()
        self._stopped = self._fleet.kernel.spawn(self._tell(vm_id))

    async def _tell(self, vm_id: str) -> str:
        why = await self._from.asks(vm_id)
        if not why:
            await self._clock.sleep(self._chance.uniform(0, 0.005))
            self._from.tell_stopped(vm_id)
        return why

    async def _handshake(self, arriving: MemoryVm) -> None:
        vm_id, there = self._vm.vm.vm_id, self._to
        if why := await self._stopped:
            raise refused(why)
        await self._clock.sleep(self._chance.uniform(0, 0.01))
        self._check(arriving)
        there.finishing.add(vm_id)
        try:
            why = await there.asks(vm_id)
        finally:
            there.finishing.discard(vm_id)
        if why or there.vms.get(vm_id) is not arriving or not there.powered:
            raise refused(why or "the destination is gone")
        there.started(vm_id)
        if self._fate is Fate.FINISH_LOST:
            await self._wait_in_vain()
            raise TimeoutError("no answer to Finish")

    async def _wait_in_vain(self) -> None:
        """libvirt gives up after a while, and the source's lock manager may be another by then."""
        if self._chance.random() < KEEPER_DIES:
            self._from.kill_lock_manager()
        await self._clock.sleep(self._chance.uniform(0, NOTICED_WITHIN_S))

    async def _go_back(self, arriving: MemoryVm) -> None:
        """The source runs on if its lock manager lets it, or else stands still."""
        vm_id = self._vm.vm.vm_id
        if self._to.vms.get(vm_id) is arriving:
            self._kill(arriving)
        if self._vm.state is not VmState.PAUSED or self._from.vms.get(vm_id) is not self._vm:
            return
        if await self._from.asks(vm_id):
            return
        here = self._from.vms.get(vm_id) is self._vm
        if here and self._from.powered and self._vm.state is VmState.PAUSED:
            self._from.started(vm_id)
