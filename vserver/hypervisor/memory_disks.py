"""The files of a `memory` host: disks, and which of them a move has made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import Reason, Refusal
from common.model.disk import Disk


@dataclass(frozen=True, slots=True)
class MemoryFile:
    bytes: int
    content: str = ""


@dataclass(slots=True)
class MemoryMirror:
    """A VM's disks that are written to another host's, too, since `begun` (monotonic, seconds)."""

    there: MemoryDisks
    paths: tuple[str, ...]
    begun: float
    in_step: bool = False
    broken: bool = False


class MemoryDisks:
    """Outlives every agent. `made`: paths by vm_id, for arrivals that have not come to an end."""

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}
        self.made: dict[str, set[str]] = {}

    def make(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """Empty ones. Those that were made for it already stay as they are."""
        mine = self.made.get(vm_id, set())
        taken = [d.path for d in disks if d.path in self.files and d.path not in mine]
        if taken:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"memory: {taken[0]} is there already")
        for disk in disks:
            self.made.setdefault(vm_id, set()).add(disk.path)
            self.files.setdefault(disk.path, MemoryFile(disk.bytes))

    def keep(self, vm_id: str) -> None:
        """What was made for it is the VM's own from now on."""
        self.made.pop(vm_id, None)

    def clear(self, vm_id: str) -> None:
        self.remove(self.made.pop(vm_id, ()))

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.files.pop(path, None)

    def sizes(self, disks: Iterable[Disk]) -> Mapping[str, tuple[int, int]]:
        found = {d.path: self.files[d.path].bytes for d in disks if d.path in self.files}
        return {path: (size, size) for path, size in found.items()}

    def check(self, disks: Iterable[Disk]) -> None:
        """As a hypervisor that opens its guest's disks."""
        for disk in disks:
            if disk.path not in self.files:
                text = f"memory: cannot access storage file {disk.path!r}"
                raise Refusal(Reason.HYPERVISOR_FAILED, text)
