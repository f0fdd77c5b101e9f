"""What a group of batches comes to, before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vcenter.store.port import Batch, Conflict
from vcenter.store.sqlite.schema import MAX_PARTS, start_of

# Position, key, value, time, and the revision that wrote the key before; None: it appears.
LogRow = tuple[int, str | None, bytes | None, int, int | None]


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

    def revision_of(self, key: str, held: Mapping[str, int]) -> int:
        """Of the key as it is by now; 0: there is none."""
        return self.final[key] if key in self.final else held.get(key, 0)

    def deletes(self) -> bool:
        return 0 in self.final.values()

    def old(self, held: Mapping[str, int], compacted: int) -> list[str]:
        """Of which keys the stored value is from before history begins."""
        return [key for key in self.final if 0 < held.get(key, 0) <= compacted]


def keys_of(batches: Iterable[Batch]) -> list[str]:
    """Of which the stored revisions have to be known."""
    expected = {key for batch in batches for key in batch.expected}
    return sorted(expected.union(put.key for batch in batches for put in batch.puts))


def plan(batches: Sequence[Batch], held: Mapping[str, int], last: int, at_ms: int) -> Plan:
    """`held`: revisions of the batches' keys as they are stored; absent means none."""
    result = Plan(last)
    for batch in batches:
        conflict = _conflict(batch, result, held)
        result.results.append(conflict or _accept(batch, result, held, at_ms))
    return result


def _conflict(batch: Batch, so_far: Plan, held: Mapping[str, int]) -> Conflict | None:
    for key, wanted in batch.expected.items():
        found = so_far.revision_of(key, held)
        if found != wanted:
            return Conflict(f"{key}: expected revision {wanted}, found {found}")
    return None


def _accept(batch: Batch, result: Plan, held: Mapping[str, int], at_ms: int) -> int:
    if len(batch.puts) > MAX_PARTS:
        raise ValueError(f"a batch holds at most {MAX_PARTS} changes, this one {len(batch.puts)}")
    result.revision += 1
    position = start_of(result.revision)
    if not batch.puts:
        result.log.append((position, None, None, at_ms, None))
    for part, put in enumerate(batch.puts):
        appears = put.value is not None and put.key not in result.final and put.key not in held
        previous = None if appears else result.revision_of(put.key, held)
        result.log.append((position + part, put.key, put.value, at_ms, previous))
        result.final[put.key] = 0 if put.value is None else result.revision
    return result.revision
