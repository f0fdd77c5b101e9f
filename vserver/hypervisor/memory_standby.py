"""Standbys on `memory` hosts: disks whose writes reach two hosts, as long as both are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from common.clock import Clock
from common.codec.checker import Checker
from common.codec.vm import from_vm, to_vm
from common.model.disk import Disk
from common.model.vm import VmState
from common.pb.vsignal.v1 import types_pb2
from vserver.hypervisor.memory_disks import MemoryFile, MemoryMirror
from vserver.hypervisor.memory_host import MemoryHost, refused
from vserver.hypervisor.memory_vm import MemoryVm
from vserver.hypervisor.metadata import Description
from vserver.hypervisor.port import Tap
from vserver.hypervisor.standby import Mirrored, not_kept


@dataclass(frozen=True, slots=True)
class MemoryStandbys:
    """`Standbys` of one host. `peer` gives another by its migration URI, or refuses."""

    host: MemoryHost
    clock: Clock
    bytes_per_second: float
    peer: Callable[[str], MemoryHost]

    async def receive(self, vm_id: str, disks: Sequence[Disk]) -> int:
        self._ask()
        self.host.stop_receiving(vm_id)
        self.host.disks.make(vm_id, disks)
        port = next(self.host.ports)
        self.host.receiving[vm_id] = port
        self.host.copies_kept.add(vm_id)
        return port

    async def adopt(self, vm_id: str, definition: bytes, disks: Sequence[Disk]) -> None:
        self._ask()
        if vm_id not in self.host.copies_kept:
            if vm_id in self.host.vms:
                return
            raise not_kept(vm_id)
        self.host.stop_receiving(vm_id)
        self.host.disks.check(disks)
        self.host.disks.keep(vm_id)
        if vm_id not in self.host.vms:
            self.host.vms[vm_id] = MemoryVm(_described(definition, disks), VmState.SHUT_OFF)
            self.host.changed(vm_id)
        self.host.copies_kept.discard(vm_id)

    async def drop(self, vm_id: str) -> None:
        self._ask()
        self.host.stop_receiving(vm_id)
        if vm_id in self.host.copies_kept:
            self.host.disks.clear(vm_id)
            self.host.copies_kept.discard(vm_id)

    async def mirror(self, vm_id: str, uri: str, port: int, disks: Sequence[Disk]) -> bytes:
        self._ask()
        vm = self.host.vms.get(vm_id)
        if vm is None or vm.state is not VmState.RUNNING:
            raise refused(f"VM {vm_id} does not run here")
        there = self.peer(uri)
        if there.receiving.get(vm_id) != port:
            raise refused("connection refused")
        paths = tuple(disk.path for disk in disks)
        mirror = MemoryMirror(there.disks, paths, self.clock.monotonic())
        for disk in disks:  # written over from the beginning: whole again when it is in step
            there.disks.files[disk.path] = MemoryFile(disk.bytes)
        there.taken[port] = mirror
        self.host.mirrors[vm_id] = mirror
        return _defined(vm.described)

    async def mirrored(self, vm_id: str) -> Mirrored | None:
        self._ask()
        vm, mirror = self.host.vms.get(vm_id), self.host.mirrors.get(vm_id)
        if mirror is None or mirror.broken:
            raise refused("the copy of a disk ended: connection reset")
        if vm is None or not vm.active:
            return None
        total = sum(self.host.disks.files[path].bytes for path in mirror.paths)
        sent = int((self.clock.monotonic() - mirror.begun) * self.bytes_per_second)
        if sent >= total and not mirror.in_step:
            mirror.in_step = True
            for path in mirror.paths:
                mirror.there.files[path] = self.host.disks.files[path]
        return Mirrored(total, min(sent, total), mirror.in_step)

    async def unmirror(self, vm_id: str) -> None:
        self._ask()
        self.host.mirrors.pop(vm_id, None)

    async def kept(self) -> Collection[str]:
        self._ask()
        return {*self.host.copies_kept, *self.host.mirrors}

    def _ask(self) -> None:
        if not self.host.reachable:
            raise refused(f"the hypervisor of {self.host.name} does not answer")


def _defined(described: Description) -> bytes:
    """JSON: what the VM is, and the bridges of its taps."""
    bridges = {tap.mac: tap.bridge for tap in described.taps}
    vm = to_vm(described.vm).SerializeToString().hex()
    return json.dumps({"vm": vm, "bridges": bridges}).encode()


def _described(definition: bytes, disks: Sequence[Disk]) -> Description:
    said = json.loads(definition)
    check = Checker()
    vm = from_vm(check, types_pb2.Vm.FromString(bytes.fromhex(said["vm"])))
    check.done()
    taps = tuple(Tap(i.mac, said["bridges"].get(i.mac, "")) for i in vm.interfaces)
    return Description(vm, taps, disks=tuple(disks))
