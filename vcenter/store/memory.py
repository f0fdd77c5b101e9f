"""A store in memory: real in all but durability, for simulation, tests and trials.

Its content belongs to the object and outlives `close`: opening it again is a restart after which
everything acknowledged is still there, as on a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain, takewhile

from vcenter.store.port import (
    Batch,
    Compacted,
    Conflict,
    Entry,
    Piece,
    Record,
    Version,
    in_hand,
)


class MemoryStore:
    def __init__(self) -> None:
        self._current: dict[str, Record] = {}
        self._log: list[Entry] = []
        self._compacted = 0
        self._base: dict[str, Record] = {}  # what was at revision `_compacted`
        self._since_ms = 0
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        self._check_open()
        results = [self._append_one(batch, at_ms) for batch in batches]
        # Callers must live with a cancellation that comes after the write, so here they meet it.
        await asyncio.sleep(0)
        return results

    async def revision(self) -> int:
        self._check_open()
        return self._last()

    async def snapshot(self) -> AsyncIterator[Sequence[Record]]:
        self._check_open()
        yield list(self._current.values())

    async def pieces(self) -> AsyncIterator[Piece]:
        async for page in self.snapshot():
            yield in_hand(page)

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
        for entry in self._log[:old]:
            _apply(self._base, entry)
            self._since_ms = entry.at_ms
        del self._log[:old]
        self._compacted += old
        return self._compacted

    async def since_ms(self) -> int:
        return self._since_ms

    async def revision_at(self, at_ms: int) -> int:
        if at_ms < self._since_ms:
            raise Compacted(self._compacted)
        found = self._compacted
        for entry in self._log:
            if entry.at_ms <= at_ms:
                found = entry.revision
        return found

    async def value_at(self, key: str, revision: int) -> Record | None:
        if revision < self._compacted:
            raise Compacted(self._compacted)
        held = self._base.get(key)
        for entry in takewhile(lambda e: e.revision <= revision, self._log):
            for put in entry.puts:
                if put.key == key:
                    held = None if put.value is None else Record(key, put.value, entry.revision)
        return held

    async def versions(self, key: str, limit: int) -> list[Version]:
        base = self._base.get(key)
        found = [Version(base.revision, base.value, 0)] if base else []
        for entry in self._log:
            last = [put.value for put in entry.puts if put.key == key][-1:]
            found += [Version(entry.revision, value, entry.at_ms) for value in last]
        return found[::-1][:limit]

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        logged = ((p.key, p.value) for e in self._log if e.revision <= until for p in e.puts)
        held = ((record.key, record.value) for record in self._base.values())
        return {
            key
            for key, value in chain(held, logged)
            if key.startswith(prefix) and value is not None and text in value
        }

    def _append_one(self, batch: Batch, at_ms: int) -> int | Conflict:
        for key, wanted in batch.expected.items():
            held = self._current.get(key)
            found = held.revision if held else 0
            if found != wanted:
                return Conflict(f"{key}: expected revision {wanted}, found {found}")
        entry = Entry(self._last() + 1, tuple(batch.puts), at_ms)
        self._log.append(entry)
        _apply(self._current, entry)
        return entry.revision

    def _last(self) -> int:
        return self._compacted + len(self._log)

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the store is not open")


def _apply(state: dict[str, Record], entry: Entry) -> None:
    for put in entry.puts:
        state.pop(put.key, None)
        if put.value is not None:
            state[put.key] = Record(put.key, put.value, entry.revision)
