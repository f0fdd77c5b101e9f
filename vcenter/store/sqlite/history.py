"""What was, read from the log: one statement a question, so that each sees one state.

`log_by_key` finds a key's changes; where the key appeared is at a revision that those name, or
`current` (see `schema`). Text inside values has no index, so looking for it reads all that is kept.
Writes stay cheap that way, and only people ask these questions.
"""

from __future__ import annotations

from typing import Any

import aiosqlite

from vcenter.store.port import Compacted, Record, Version
from vcenter.store.sqlite.schema import PART_BITS, revision_of, start_of

_BEGINS = "SELECT compacted, since_ms FROM history"
_NEXT = "SELECT position, at_ms FROM log WHERE position >= ? ORDER BY position LIMIT 1"
# The row with which the key appeared, at the revision that is named.
_APPEARED = (
    f"appeared.position >= named.revision << {PART_BITS}"
    f" AND appeared.position < named.revision + 1 << {PART_BITS}"
    " AND appeared.key = :key AND appeared.previous IS NULL"
)
# The last change, or what the next one came after; or what was put aside, or what never changed
# since; and where history begins.
_VALUE_AT = (
    f"SELECT * FROM (SELECT value, position >> {PART_BITS} FROM log WHERE key = :key"
    " AND previous IS NOT NULL AND position < :end ORDER BY position DESC LIMIT 1)"
    f" UNION ALL SELECT appeared.value, appeared.position >> {PART_BITS}"
    " FROM (SELECT previous AS revision FROM log WHERE key = :key"
    " AND previous IS NOT NULL AND position >= :end ORDER BY position LIMIT 1) AS named"
    f" CROSS JOIN log AS appeared ON {_APPEARED} AND appeared.position < :end"
    " UNION ALL SELECT value, revision FROM base WHERE key = :key"
    " UNION ALL SELECT value, revision FROM current WHERE key = :key AND revision <= :revision"
    " UNION ALL SELECT NULL, -compacted FROM history"
)
_VERSIONS = (
    "SELECT revision, value, at_ms FROM ("  # of a revision's changes the last one counts
    f"SELECT position >> {PART_BITS} AS revision, value, at_ms, max(position) FROM ("
    "SELECT position, value, at_ms FROM log WHERE key = :key AND previous IS NOT NULL"
    " UNION ALL SELECT appeared.position, appeared.value, appeared.at_ms"
    " FROM (SELECT previous AS revision FROM log WHERE key = :key AND previous IS NOT NULL"
    " UNION SELECT revision FROM current WHERE key = :key) AS named"
    f" CROSS JOIN log AS appeared ON {_APPEARED}"
    ") GROUP BY 1 ORDER BY 1 DESC LIMIT :limit)"
    " UNION ALL SELECT revision, value, 0 FROM base WHERE key = :key"
    " UNION ALL SELECT revision, value, 0 FROM current, history WHERE key = :key"
    " AND revision <= compacted"
)
_MENTIONS = (
    "SELECT key FROM log NOT INDEXED WHERE position < :end AND key >= :low AND key < :high"
    " AND instr(value, :text) UNION SELECT key FROM base WHERE key >= :low AND key < :high"
    " AND instr(value, :text)"
)


class History:
    """Questions to one reading connection."""

    def __init__(self, reader: aiosqlite.Connection) -> None:
        self._reader = reader

    async def begins(self) -> tuple[int, int]:
        """The revision after which history starts, and its wall time."""
        (row,) = await self._reader.execute_fetchall(_BEGINS)
        return int(row[0]), int(row[1])

    async def revision_at(self, at_ms: int, last: int) -> int:
        """By halves: times grow with revisions, but where a clock was set back."""
        low, since = await self.begins()
        if at_ms < since:
            raise Compacted(low)
        high = last
        while low < high:
            middle = (low + high + 1) // 2
            rows = list(await self._reader.execute_fetchall(_NEXT, (start_of(middle),)))
            if rows and rows[0][1] <= at_ms:
                low = min(revision_of(rows[0][0]), high)
            else:
                high = middle - 1
        return low

    async def value_at(self, key: str, revision: int) -> Record | None:
        bounds = {"key": key, "revision": revision, "end": start_of(revision + 1)}
        *found, (_, begins) = await self._ask(_VALUE_AT, bounds)
        if revision < -begins:
            raise Compacted(-begins)
        value, written = max(found, key=lambda row: row[1], default=(None, 0))
        return None if value is None else Record(key, value, written)

    async def versions(self, key: str, limit: int) -> list[Version]:
        rows = await self._ask(_VERSIONS, {"key": key, "limit": limit})
        return [Version(*row) for row in rows[:limit]]

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        high = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        bounds = {"low": prefix, "high": high, "text": text, "end": start_of(until + 1)}
        return {row[0] for row in await self._ask(_MENTIONS, bounds)}

    async def _ask(self, statement: str, bounds: dict[str, Any]) -> list[Any]:
        return list(await self._reader.execute_fetchall(statement, bounds))
