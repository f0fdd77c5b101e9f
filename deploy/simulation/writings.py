"""What guests write to their disks, which files have it, and that none of it is lost.

Every write is a number that was never written before, and each guest knows its last one: wherever
it runs, its disk has that. What a standby has when it is promoted is the last word from then on, if
it has all that the guest wrote for as long as the vCenter could know both to be in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING

from common.model.disk import Disk
from common.model.vm import VmState
from deploy.simulation.journal import Journal, short
from vserver.hypervisor.memory_disks import MemoryDisks, MemoryFile

if TYPE_CHECKING:
    from deploy.simulation.machines import Machine

SIZE = 64 << 20
# From a mirror's end to the ledger's knowing: a libvirtd that hangs, slow links, an agent and then
# a vCenter that stand still (26 s in seed 2279).
NOTICED_S = 40.0


def disk_of(vm_id: str) -> Disk:
    """The one disk of a guest that has one: on its host's own storage."""
    return Disk(f"/images/{vm_id}", "raw", SIZE, local=True)


class Files(MemoryDisks):
    """One host's. `removes` hears whose file is about to go, unless a person removes it."""

    def __init__(self, removes: Callable[[str], None]) -> None:
        super().__init__()
        self._removes = removes

    def remove(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            self._removes(path.rpartition("/")[2])
            self.files.pop(path, None)


class Writings:
    """`machines`: all of the world's, by name."""

    def __init__(
        self, journal: Journal, now: Callable[[], float], machines: Mapping[str, Machine]
    ) -> None:
        self._journal = journal
        self._now = now
        self._machines = machines
        self._numbers = count(1)
        self._last: dict[str, str] = {}  # by guest: what it knows to be written
        self._apart: dict[str, float] = {}  # since when its writes reach its own disk alone

    # ---- people and guests ----

    def begin(self, machine: Machine, vm_id: str) -> Disk:
        """A new guest, with a new disk."""
        disk = disk_of(vm_id)
        self._last[vm_id] = str(next(self._numbers))
        machine.disks.files[disk.path] = MemoryFile(SIZE, self._last[vm_id])
        return disk

    def end(self, machine: Machine, vm_id: str) -> None:
        """Removed by a person, with its disk: here, and then perhaps everywhere."""
        machine.disks.files.pop(disk_of(vm_id).path, None)
        if not any(vm_id in m.vms for m in self._machines.values()):
            self._last.pop(vm_id, None)

    def carry(self, vm_id: str, origin: Machine, to: Machine) -> None:
        """Moved by a person, with its disk, if it has one."""
        path = disk_of(vm_id).path
        if path in origin.disks.files:
            to.disks.files[path] = origin.disks.files.pop(path)

    def is_current(self, machine: Machine, vm_id: str) -> bool:
        """Nothing that the guest wrote is missing here."""
        return self._found(machine, vm_id) == self._last.get(vm_id, "")

    def go_on(self) -> None:
        """Every guest that runs writes once."""
        for machine in self._machines.values():
            for vm_id, vm in machine.vms.items():
                if machine.powered and vm.state is VmState.RUNNING and vm.described.disks:
                    self._write(machine, vm_id)

    def _write(self, machine: Machine, vm_id: str) -> None:
        self._last[vm_id] = str(next(self._numbers))
        machine.write(vm_id, disk_of(vm_id).path, self._last[vm_id])
        mirror = machine.mirrors.get(vm_id)
        if mirror is not None and mirror.in_step and not mirror.broken:
            self._apart.pop(vm_id, None)
        else:
            self._apart.setdefault(vm_id, self._now())

    # ---- what must hold ----

    def runs(self, machine: Machine, vm_id: str) -> None:
        """On a disk that has what it wrote last, and nobody else writes to."""
        if not self.is_current(machine, vm_id):
            found = self._found(machine, vm_id) or "nothing"
            text = f"{short(vm_id)} runs on {machine.name} with {found}, after {self._last[vm_id]}"
            self._journal.violated("disk", text)
        if vm_id in machine.receiving or vm_id in machine.taking:
            text = f"{short(vm_id)} runs on {machine.name}, where its disk is being written to"
            self._journal.violated("disk", text)

    def removes(self, machine: Machine, vm_id: str) -> None:
        """Never the only one that has what the guest wrote last, and a guest that could run."""
        found = self._found(machine, vm_id)
        if not found or found != self._last.get(vm_id):
            return
        others = (m for m in self._machines.values() if m is not machine)
        if not any(self._found(m, vm_id) == found and _lives(m, vm_id) for m in others):
            text = f"{machine.name} removes the only good disk of {short(vm_id)}"
            self._journal.violated("disk", text)

    def adopted(self, machine: Machine, vm_id: str, heard: float) -> None:
        """A standby becomes a guest. `heard`: until when its original's host was heard. A person
        may have cleared the original away since: what that had written nobody knows then."""
        found = self._found(machine, vm_id)
        since = self._apart.pop(vm_id, heard)
        if not found:
            text = f"{short(vm_id)} was promoted on {machine.name}, and its copy is not whole"
            self._journal.violated("standby", text)
        elif found != self._last.get(vm_id, found) and heard - since > NOTICED_S:
            text = (
                f"{short(vm_id)} was promoted on {machine.name}, {heard - since:.0f} s out of step"
            )
            self._journal.violated("standby", text)
        self._last[vm_id] = found

    def _found(self, machine: Machine, vm_id: str) -> str:
        """ "": no file, or not a whole one."""
        file = machine.disks.files.get(disk_of(vm_id).path)
        return file.content if file is not None else ""


def _lives(machine: Machine, vm_id: str) -> bool:
    vm = machine.vms.get(vm_id)
    return vm is not None and vm.state is not VmState.INCOMING
