"""The ledger as it was: the store's log, read as records.

Only what is visible in the table is told: a write that is durable but not yet published is not the
past, it is the future.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from vcenter.core.keys import Ledgered
from vcenter.core.table import Table
from vcenter.records import decode
from vcenter.store.port import Store


@dataclass(frozen=True, slots=True)
class Was:
    """One durable batch. None: the record was deleted."""

    revision: int
    changes: Sequence[tuple[str, Ledgered | None]]


class Past:
    """Raises `Compacted` for what is not kept any more."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table

    async def entries(self, after: int) -> AsyncIterator[Was]:
        """What was committed after a revision, up to what is visible at the first step."""
        until = self._table.revision
        async for entry in self._store.read(after):
            if entry.revision > until:
                return
            changes = [(p.key, _read(p.key, p.value, entry.revision)) for p in entry.puts]
            yield Was(entry.revision, changes)

    async def record(self, key: str, revision: int) -> Ledgered | None:
        """As it was at a revision."""
        found = await self._store.value_at(key, revision)
        return _read(key, found.value, found.revision) if found is not None else None


def _read(key: str, value: bytes | None, revision: int) -> Ledgered | None:
    return None if value is None else replace(decode(key, value), revision=revision)
