"""How `vserver guest` tells a running agent that a guest is not as it was: its id, one datagram.

Nothing depends on its coming: an agent that was not there reads everything when it starts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_NAME = "bell"


class Bell:
    """The agent's end. `open` it again when its directory was away."""

    def __init__(self, root: Path, rung: Callable[[str], None]) -> None:
        self._path = root / _NAME
        self._rung = rung
        self._socket: socket.socket | None = None

    def open(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._path))
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def close(self) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _hear(self) -> None:
        assert self._socket is not None
        with suppress(OSError, UnicodeDecodeError):
            self._rung(self._socket.recv(64).decode())


def ring(root: Path, vm_id: str) -> None:
    """Whoever changed a guest says so; nobody may be there to hear it."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as bell:
        bell.sendto(vm_id.encode(), str(root / _NAME))
