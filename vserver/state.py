"""What the agent keeps across a restart: the epochs that it has seen, and nothing else.

Everything else is read again from the hypervisor, the kernel and the vCenter. The file lags behind
by a moment: an order must not wait for a disk while a VM is between two hosts.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Protocol

from common import log
from common.clock import Clock
from common.wake import Wake
from vserver.core.epochs import Epochs, KnownEpochs

TRY_AGAIN = 5.0

_log = log.get(__name__)


class StateError(Exception):
    """The file cannot be used; the text says what to do."""


class State(Protocol):
    async def load(self) -> KnownEpochs: ...

    async def save(self, epochs: KnownEpochs) -> None:
        """Atomic and durable; raises OSError."""
        ...


class MemoryState:
    """For agents whose host is in memory too."""

    def __init__(self) -> None:
        self._kept = KnownEpochs()

    async def load(self) -> KnownEpochs:
        return self._kept

    async def save(self, epochs: KnownEpochs) -> None:
        self._kept = epochs


class FileState:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "epochs.json"

    async def load(self) -> KnownEpochs:
        return await asyncio.to_thread(self._read)

    async def save(self, epochs: KnownEpochs) -> None:
        await asyncio.to_thread(self._write, epochs)

    def _read(self) -> KnownEpochs:
        try:
            data = json.loads(self._path.read_bytes())
            return KnownEpochs(_numbers(data["seen"]), _numbers(data["held"]))
        except FileNotFoundError:
            return KnownEpochs()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{self._path} is damaged ({error!r}). It fences this host against stale orders: "
                "restore it, or remove it once no order of this host's vCenter is in doubt"
            ) from error

    def _write(self, epochs: KnownEpochs) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump({"seen": dict(epochs.seen), "held": dict(epochs.held)}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _numbers(values: object) -> dict[str, int]:
    if not isinstance(values, dict):
        raise TypeError("not a table")
    return {str(key): int(value) for key, value in values.items()}


class Keeper:
    """Saves the epochs whenever they have changed."""

    def __init__(self, epochs: Epochs, state: State, clock: Clock) -> None:
        self._epochs = epochs
        self._state = state
        self._saved = epochs.changes
        self.wake = Wake(clock)

    async def run(self) -> None:
        while True:
            failed = not await self.keep()
            await self.wake.heard(TRY_AGAIN if failed else None)

    async def keep(self) -> bool:
        """Whether what is known is safe."""
        changes = self._epochs.changes
        if changes == self._saved:
            return True
        try:
            await self._state.save(self._epochs.known())
        except OSError as error:
            _log.error("cannot keep the epochs", error=str(error))
            return False
        self._saved = changes
        return True
