"""One copy between two `memory` hosts: it takes virtual time, and can end at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from common.clock import Clock
from common.model.operation import MoveKind, Progress
from common.model.vm import VmState
from vserver.core.pace import Pace
from vserver.hypervisor.memory_host import MemoryHost, refused
from vserver.hypervisor.memory_speed import CopySpeed, Course, Load
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms

_MIB = 1 << 20


class MemoryCopy:
    """The source runs on until the switch (SUSPEND: it stands still from the beginning), and again
    if anything goes wrong before its end."""

    def __init__(
        self,
        clock: Clock,
        speed: CopySpeed,
        vm: MemoryVm,
        source: MemoryHost,
        destination: MemoryHost,
        terms: CopyTerms = PLAIN,
    ) -> None:
        self.ended = asyncio.Event()
        self._clock = clock
        self._speed = speed
        self._vm = vm
        self._source = source
        self._destination = destination
        self._terms = terms
        self._fault = source.take_copy_fault()
        self._share = 0.0
        self._aborted = False

    def abort(self) -> None:
        """It ends at its next step."""
        self._aborted = True

    async def run(self, devices: Mapping[str, str], progress: Callable[[Progress], None]) -> Copied:
        """Copy, stand still for the switch, and leave the VM paused over there."""
        destination, vm_id = self._destination, self._vm.vm.vm_id
        there = destination.vms.get(vm_id)
        if there and there.active:
            raise refused("the domain is already active at the destination")
        destination.disks.check(self._vm.described.disks)
        arriving = self._vm.at_destination(devices)
        destination.vms[vm_id] = arriving
        destination.changed(vm_id)
        try:
            copied = await self._transfer(arriving, progress)
        except BaseException:
            self._undo(arriving)
            raise
        arriving.arrived = True
        destination.changed(vm_id)
        self._source.drop(vm_id)
        return copied

    async def _transfer(self, arriving: MemoryVm, progress: Callable[[Progress], None]) -> Copied:
        def told(now: Progress) -> None:
            self._share = now.bytes_processed / max(now.bytes_total, 1)
            progress(now)

        self._check(arriving)
        if self._terms.kind is MoveKind.SUSPEND:
            self._stand_still()
        memory = max(self._vm.vm.resources.memory_mib, 1) * _MIB
        still = self._terms.kind is MoveKind.SUSPEND
        load = Load(
            sum(disk.bytes for disk in self._terms.disks), memory, 0 if still else self._vm.writes
        )
        pace = Pace(self._terms.budget)
        course = Course(self._clock, self._speed, pace, told, lambda: self._check(arriving))
        left = await course.run(load)
        self._check(arriving)
        self._stand_still()
        await self._clock.sleep(left.seconds)
        self._check(arriving)
        for disk in self._terms.disks:
            self._destination.disks.files[disk.path] = self._source.disks.files[disk.path]
        return Copied(
            left.sent,
            left.seconds * 1000,
            left.rounds,
            disk_bytes=load.disks,
            slowed_percent=left.slowed_percent,
            suspended=pace.suspended,
        )

    def _stand_still(self) -> None:
        if self._vm.state is not VmState.PAUSED:
            self._vm.state = VmState.PAUSED
            self._source.changed(self._vm.vm.vm_id)

    def _check(self, arriving: MemoryVm) -> None:
        """What a real copy notices between two pages."""
        vm_id = self._vm.vm.vm_id
        source, destination = self._source, self._destination
        if not source.reachable:
            raise TimeoutError("the hypervisor went away during a copy")
        if source.vms.get(vm_id) is not self._vm or not self._vm.active:
            raise refused("the domain was stopped during its copy")
        if self._aborted:
            raise refused("operation aborted: job 'migration out' canceled by client")
        if self._fault and self._share >= self._fault[1]:
            raise refused(self._fault[0])
        if not destination.powered or destination.vms.get(vm_id) is not arriving:
            raise refused("the destination is gone")

    def _undo(self, arriving: MemoryVm) -> None:
        vm_id = self._vm.vm.vm_id
        if self._destination.vms.get(vm_id) is arriving:
            self._destination.drop(vm_id)
        if self._source.powered and self._vm.state is VmState.PAUSED:
            self._vm.state = VmState.RUNNING
            self._source.changed(vm_id)
