"""What a group of batches comes to, before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vcenter.store.port import Batch, Conflict
from vcenter.store.sqlite.schema import MAX_PARTS, start_of

LogRow = tuple[int, str | None, bytes | None, int]


@dataclass(slots=True)
class Plan:
    """The rows of one transaction, and the answer to each batch.

    `final` holds the revision of each key that was written (0: it was deleted), as later batches
    of the group find it.
    """

    revision: int
    results: list[int | Conflict] = field(default_factory=list)
    log: list[LogRow] = field(default_factory=list)
    final: dict[str, int] = field(default_factory=dict)

    def deletes(self) -> bool:
        return 0 in self.final.values()

    def old(self, held: Mapping[str, int], expected: Sequence[str], compacted: int) -> list[str]:
        """Of which keys the stored value may be from before history begins."""
        if not compacted:
            return []
        known = set(expected)
        return [k for k in self.final if k not in known or 0 < held.get(k, 0) <= compacted]


def expected_keys(batches: Iterable[Batch]) -> list[str]:
    return sorted({key for batch in batches for key in batch.expected})


def plan(batches: Sequence[Batch], held: Mapping[str, int], last: int, at_ms: int) -> Plan:
    """`held`: revisions of the expected keys as they are stored; absent means none."""
    result = Plan(last)
    for batch in batches:
        result.results.append(_conflict(batch, result, held) or _accept(batch, result, at_ms))
    return result


def _conflict(batch: Batch, so_far: Plan, held: Mapping[str, int]) -> Conflict | None:
    for key, wanted in batch.expected.items():
        found = so_far.final[key] if key in so_far.final else held.get(key, 0)
        if found != wanted:
            return Conflict(f"{key}: expected revision {wanted}, found {found}")
    return None


def _accept(batch: Batch, result: Plan, at_ms: int) -> int:
    if len(batch.puts) > MAX_PARTS:
        raise ValueError(f"a batch holds at most {MAX_PARTS} changes, this one {len(batch.puts)}")
    result.revision += 1
    position = start_of(result.revision)
    if not batch.puts:
        result.log.append((position, None, None, at_ms))
    for part, put in enumerate(batch.puts):
        result.log.append((position + part, put.key, put.value, at_ms))
        result.final[put.key] = 0 if put.value is None else result.revision
    return result.revision
