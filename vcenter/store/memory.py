"""A store in memory: real in all but durability, for simulation, tests and trials.

Its content belongs to the object and outlives `close`: opening it again is a restart after which
everything acknowledged is still there, as on a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import takewhile

from vcenter.store.port import Batch, Compacted, Conflict, Entry, Record


class MemoryStore:
    def __init__(self) -> None:
        self._current: dict[str, Record] = {}
        self._log: list[Entry] = []
        self._compacted = 0
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def append(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        self._check_open()
        results = [self._append_one(batch, at_ms) for batch in batches]
        # Callers must live with a cancellation that comes after the write, so here they meet it.
        await asyncio.sleep(0)
        return results

    async def revision(self) -> int:
        self._check_open()
        return self._last()

    async def snapshot(self) -> AsyncIterator[Record]:
        self._check_open()
        for _, record in sorted(self._current.items()):
            yield record

    async def read(self, after: int) -> AsyncIterator[Entry]:
        self._check_open()
        last, reached = self._last(), max(after, 0)
        while reached < last:
            if reached < self._compacted:
                raise Compacted(self._compacted)
            entry = self._log[reached - self._compacted]
            yield entry
            reached = entry.revision

    async def compact(self, before_ms: int) -> int:
        self._check_open()
        old = sum(1 for _ in takewhile(lambda entry: entry.at_ms < before_ms, self._log))
        del self._log[:old]
        self._compacted += old
        return self._compacted

    def _append_one(self, batch: Batch, at_ms: int) -> int | Conflict:
        for key, wanted in batch.expected.items():
            held = self._current.get(key)
            found = held.revision if held else 0
            if found != wanted:
                return Conflict(f"{key}: expected revision {wanted}, found {found}")
        entry = Entry(self._last() + 1, tuple(batch.puts), at_ms)
        self._log.append(entry)
        for put in entry.puts:
            self._current.pop(put.key, None)
            if put.value is not None:
                self._current[put.key] = Record(put.key, put.value, entry.revision)
        return entry.revision

    def _last(self) -> int:
        return self._compacted + len(self._log)

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the store is not open")
