"""What the gate, and who stops copies, must still know after the agent was restarted: a small file
for each VM, with the side of its move that this host is on.

What a source's note says ends with its host: no guest outlives it. A destination's does not: its
guest runs on at the source, and may still be sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.secrets import write_private

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
        """What no longer counts is removed."""
        if not self.directory.is_dir():
            return {}
        boot, found = _boot(), {}
        for file in self.directory.iterdir():
            said, _, role = file.read_text().partition(" ")
            counts = role == Role.DESTINATION or (role == Role.SOURCE and said == boot)
            if counts and not file.name.startswith("."):  # which was being written
                found[file.name] = Role(role)
            else:
                file.unlink(missing_ok=True)
        return found

    def _write(self, vm_id: str, role: Role) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self.directory / vm_id, f"{_boot()} {role}".encode())


def _boot() -> str:
    return _BOOT.read_text().strip()
