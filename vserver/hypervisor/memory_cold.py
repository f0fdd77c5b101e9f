"""What the `memory` adaptor does with VMs that are off, and to make them so."""

from __future__ import annotations

from common.clock import Clock
from common.model.vm import VmState
from vserver.hypervisor.memory_host import MemoryHost, refused
from vserver.hypervisor.memory_vm import MemoryVm

TAKES_S = 0.02  # both hosts have the definition for so long


async def hand_over(clock: Clock, vm_id: str, source: MemoryHost, destination: MemoryHost) -> None:
    """As libvirt does it: defined over there, then undefined here; while that lasts nobody else
    changes it here, or it is undone."""
    vm = _off(vm_id, source)
    there = destination.vms.get(vm_id)
    if there is not None and there.active:
        raise refused("the domain is already active at the destination")
    if fault := source.take_copy_fault():
        raise refused(fault[0])
    given = MemoryVm(vm.described, VmState.SHUT_OFF)
    destination.vms[vm_id] = given
    destination.changed(vm_id)
    await clock.sleep(TAKES_S)
    if source.powered and source.vms.get(vm_id) is vm and not vm.active:
        source.drop(vm_id)
        return
    if destination.vms.get(vm_id) is given and not given.active:
        destination.drop(vm_id)
    raise refused(f"VM {vm_id} did not stay as it was while it was handed over")


def _off(vm_id: str, host: MemoryHost) -> MemoryVm:
    vm = host.vms.get(vm_id)
    if vm is None or vm.active:
        raise refused(f"VM {vm_id} is not here, or not off")
    return vm


def power_on(vm_id: str, host: MemoryHost) -> None:
    vm = host.vms.get(vm_id)
    if vm is None:
        raise refused(f"there is no VM {vm_id} here")
    if fault := host.take_start_fault():
        raise refused(fault)
    if not vm.active:
        host.disks.check(vm.described.disks)
        host.start(vm_id)


def ask_off(vm_id: str, host: MemoryHost) -> None:
    vm = host.vms.get(vm_id)
    if vm is not None and vm.state is VmState.RUNNING and vm_id not in host.deaf:
        host.stop(vm_id)
