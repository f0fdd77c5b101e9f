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

    `final` holds only the last value of each key: one that changes many times within a group is
    written once to `current`, though each change has its log row.
    """

    revision: int
    results: list[int | Conflict] = field(default_factory=list)
    log: list[LogRow] = field(default_factory=list)
    final: dict[str, tuple[bytes | None, int]] = field(default_factory=dict)

    def puts(self) -> list[tuple[str, bytes, int]]:
        """In key order, so that neighbours on a page are written together."""
        return sorted(
            (key, value, revision)
            for key, (value, revision) in self.final.items()
            if value is not None
        )

    def deletes(self) -> list[tuple[str]]:
        return [(key,) for key, (value, _) in self.final.items() if value is None]

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
        if key in so_far.final:
            value, written = so_far.final[key]
            found = 0 if value is None else written
        else:
            found = held.get(key, 0)
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
        result.final[put.key] = (put.value, result.revision)
    return result.revision
