"""What the gate, and who stops copies, must still know after the agent was restarted: a small file
for each VM, with the side of its move that this host is on.

A note is of this boot only: no guest outlives its host.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Role(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class NoteFiles:
    """`gate.Notes` in a directory."""

    directory: Path

    async def read(self) -> dict[str, Role]:
        return await asyncio.to_thread(self._read)

    async def write(self, vm_id: str, role: Role) -> None:
        await asyncio.to_thread(self._write, vm_id, role)

    async def remove(self, vm_id: str) -> None:
        await asyncio.to_thread((self.directory / vm_id).unlink, missing_ok=True)

    def _read(self) -> dict[str, Role]:
        """What is left of another boot is removed."""
        if not self.directory.is_dir():
            return {}
        boot, found = _boot(), {}
        for file in self.directory.iterdir():
            said, _, role = file.read_text().partition(" ")
            if said == boot and role in set(Role):
                found[file.name] = Role(role)
            else:
                file.unlink(missing_ok=True)
        return found

    def _write(self, vm_id: str, role: Role) -> None:
        """By renaming: a note is whole, or not there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self.directory / f".{vm_id}"
        fresh.write_text(f"{_boot()} {role}")
        fresh.replace(self.directory / vm_id)


def _boot() -> str:
    return _BOOT.read_text().strip()
