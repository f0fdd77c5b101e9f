"""What the `memory` adaptor does with VMs that are off, and to make them so."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from common.model.vm import VmState
from vserver.hypervisor.memory_disks import MemoryFile
from vserver.hypervisor.memory_host import MemoryHost, refused
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.port import Luggage

TAKES_S = 0.02  # both hosts have the definition for so long


@dataclass(slots=True)
class HandOver:
    """One VM that is off, on its way. As libvirt does it: defined over there, then undefined here;
    while that lasts nobody else changes it here, or it is undone. Its disks go before."""

    clock: Clock
    speed: CopySpeed
    source: MemoryHost
    destination: MemoryHost
    called_off: bool = False

    async def run(self, vm_id: str, luggage: Luggage) -> None:
        source, destination = self.source, self.destination
        vm = _off(vm_id, source)
        there = destination.vms.get(vm_id)
        if there is not None and there.active:
            raise refused("the domain is already active at the destination")
        if fault := source.take_copy_fault():
            raise refused(fault[0])
        sent = await self._sent(vm, luggage)
        given = MemoryVm(vm.described, VmState.SHUT_OFF)
        destination.vms[vm_id] = given
        destination.changed(vm_id)
        await self.clock.sleep(TAKES_S)
        if self._stands(vm) and sent.items() <= source.disks.files.items():
            source.drop(vm_id)
            return
        if destination.vms.get(vm_id) is given and not given.active:
            destination.drop(vm_id)
        raise refused(f"VM {vm_id} did not stay as it was while it was handed over")

    async def _sent(self, vm: MemoryVm, luggage: Luggage) -> dict[str, MemoryFile]:
        """What is over there now."""
        sent: dict[str, MemoryFile] = {}
        for number, disk in enumerate(luggage.disks):
            self._check(vm, luggage.port)
            self.source.disks.check([disk])
            file = self.source.disks.files[disk.path]
            for step in range(1, self.speed.steps + 1):
                took = disk.bytes / self.speed.bytes_per_second
                await self.clock.sleep(took / self.speed.steps)
                self._check(vm, luggage.port)
                luggage.told(number, step / self.speed.steps)
            self.destination.disks.files[disk.path] = sent[disk.path] = file
        return sent

    def _stands(self, vm: MemoryVm) -> bool:
        here = self.source.vms.get(vm.vm.vm_id)
        return self.source.powered and here is vm and not vm.active

    def _check(self, vm: MemoryVm, port: int) -> None:
        """What a real copy notices between two blocks."""
        if self.called_off:
            raise refused("the copy was called off")
        if not self._stands(vm):
            raise refused(f"VM {vm.vm.vm_id} did not stay off while its disks were copied")
        there = self.destination
        if not there.powered or there.taking.get(vm.vm.vm_id) != port:
            raise refused("the destination takes no disks of it")


def _off(vm_id: str, host: MemoryHost) -> MemoryVm:
    vm = host.vms.get(vm_id)
    if vm is None or vm.active:
        raise refused(f"VM {vm_id} is not here, or not off")
    return vm


def power_on(vm_id: str, host: MemoryHost) -> None:
    vm = host.vms.get(vm_id)
    if vm is None:
        raise refused(f"there is no VM {vm_id} here")
    if vm_id in host.taking:
        raise refused(f"VM {vm_id}: its disks are locked: they are being written to")
    if fault := host.take_start_fault():
        raise refused(fault)
    if not vm.active:
        host.disks.check(vm.described.disks)
        host.start(vm_id)


def ask_off(vm_id: str, host: MemoryHost) -> None:
    vm = host.vms.get(vm_id)
    if vm is not None and vm.state is VmState.RUNNING and vm_id not in host.deaf:
        host.stop(vm_id)
