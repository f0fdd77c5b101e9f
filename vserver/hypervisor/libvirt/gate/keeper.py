"""The gate with its socket and its notes."""

from __future__ import annotations

from pathlib import Path

from common.clock import Clock
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.gate.server import LockServer
from vserver.hypervisor.libvirt.notes import NoteFiles


class Keeper:
    """`socket`: where this libvirtd's lockd plugin looks for virtlockd. `notes`: a directory."""

    def __init__(self, socket: Path, notes: Path, clock: Clock) -> None:
        self.gate = Gate(NoteFiles(notes), clock)
        self._server = LockServer(socket, self.gate.asked)

    async def open(self) -> None:
        """Raises `Refusal`, or `OSError`."""
        await self.gate.load()
        await self._server.open()

    async def close(self) -> None:
        await self._server.close()
