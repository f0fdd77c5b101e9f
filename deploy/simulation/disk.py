"""The vCenter's store on a disk that can lose what was not synchronized.

A write is in the page cache for a while before its fsync is over. When the process dies then, or
the machine with it, some of it is there afterwards, all of it, or nothing: everything is allowed,
for nobody was told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from vcenter.store.memory import MemoryStore
from vcenter.store.port import Batch, Conflict, Entry, WriteFailed

WRITE_S = (0.00005, 0.0005)
FSYNC_S = (0.0002, 0.004)


class Disk(MemoryStore):
    """What a restart finds. `written` is told of every batch that has become durable."""

    def __init__(self, chance: random.Random, written: Callable[[Entry], None]) -> None:
        super().__init__()
        self.full = False
        self.slow = 1.0
        self.durable = 0  # the last revision that is
        self._chance = chance
        self._written = written
        self._cache: list[tuple[Batch, int]] = []

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        """Carried through even if whoever asked is cancelled."""
        self._check_open()
        return await asyncio.shield(asyncio.ensure_future(self._append(batches, at_ms)))

    async def _append(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        await asyncio.sleep(self._chance.uniform(*WRITE_S) * self.slow)
        if self.full:
            raise WriteFailed("no space left on device")
        self._cache += [(batch, at_ms) for batch in batches]
        await asyncio.sleep(self._chance.uniform(*FSYNC_S) * self.slow)
        return self._synchronize(len(batches))

    def lose_power(self) -> int:
        """How many batches were lost. A killed process loses none that it had written; a machine
        without power keeps what the disk had got to by itself."""
        self._synchronize(self._chance.randint(0, len(self._cache)))
        lost, self._cache = len(self._cache), []
        return lost

    def _synchronize(self, count: int) -> list[int | Conflict]:
        """The first so many batches of the cache are safe from now on."""
        safe, self._cache = self._cache[:count], self._cache[count:]
        return [self._keep(batch, at_ms) for batch, at_ms in safe]

    def _keep(self, batch: Batch, at_ms: int) -> int | Conflict:
        result = self._append_one(batch, at_ms)
        if isinstance(result, int):
            self.durable = result
            self._written(self._log[-1])
        return result
