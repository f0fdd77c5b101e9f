"""The ledger as it was: the store's log, read as records.

Only what is visible in the table is told: a write that is durable but not yet published is not the
past, it is the future.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from common.model.vm import VmKey, VmRecord
from vcenter.core import keys
from vcenter.core.keys import Ledgered
from vcenter.core.table import Table
from vcenter.ledger.records import decode
from vcenter.store.port import Store, Version


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

    async def where_was(self, key: VmKey, at_ms: int) -> tuple[int, VmRecord | None]:
        """The ledger's revision at that time, and who had the identity then."""
        revision = min(await self._store.revision_at(at_ms), self._table.revision)
        for candidate in await self._candidates(key, revision):
            record = await self.record(candidate, revision)
            if isinstance(record, VmRecord) and (
                key.claim is None or key.claim in record.vm.claims()
            ):
                return revision, record
        return revision, None

    async def _candidates(self, key: VmKey, revision: int) -> set[str]:
        """Whoever has the claim now, and whoever ever had its address in the kept history."""
        if key.claim is None:
            return {keys.vm(key.vm_id)}
        now = self._table.holder(key.claim)
        held = {keys.vm(now)} if now is not None else set()
        return held | await self._store.mentions("vm/", key.claim.address.encode(), revision)

    async def versions(self, vm_id: str, limit: int) -> list[tuple[Version, VmRecord | None]]:
        """The newest states of a VM, the newest first."""
        key, found = keys.vm(vm_id), []
        for version in await self._store.versions(key, limit):
            record = _read(key, version.value, version.revision)
            if version.revision <= self._table.revision:
                found.append((version, record if isinstance(record, VmRecord) else None))
        return found

    async def since_ms(self) -> int:
        """From when on it is known what was; 0: from the beginning."""
        return await self._store.since_ms()


def _read(key: str, value: bytes | None, revision: int) -> Ledgered | None:
    return None if value is None else replace(decode(key, value), revision=revision)
