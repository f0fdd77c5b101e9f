"""How a group of batches is cut into transactions, before anything is written. Pure.

etcd takes 128 operations and 1.5 MiB a transaction unless it is configured otherwise. A batch is
never cut: where it is too large, its run carries it whole and `now/` follows (`redo`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vcenter.store.etcd.layout import Held
from vcenter.store.port import Batch, Conflict, Put

MAX_KEYS = 120  # of etcd's 128 operations; the rest is ours
MAX_BYTES = 512 * 1024  # of log, and as much again of `now/`
MAX_BATCHES = 256


@dataclass(slots=True)
class Run:
    """Batches that go together. `start` counts in the group's batches."""

    first: int
    start: int
    batches: list[Sequence[Put]] = field(default_factory=list)
    outcome: dict[str, Held] = field(default_factory=dict)
    size: int = 0

    @property
    def last(self) -> int:
        return self.first + len(self.batches) - 1

    @property
    def fits(self) -> bool:
        return len(self.outcome) <= MAX_KEYS and self.size <= MAX_BYTES

    def add(self, puts: Sequence[Put]) -> None:
        self.batches.append(puts)
        self.size += size_of(puts)
        self.outcome.update((put.key, Held(self.last, put.value)) for put in puts)

    def takes(self, puts: Sequence[Put]) -> bool:
        keys = len(self.outcome.keys() | {put.key for put in puts})
        small = self.size + size_of(puts) <= MAX_BYTES
        return keys <= MAX_KEYS and small and len(self.batches) < MAX_BATCHES


def size_of(puts: Sequence[Put]) -> int:
    return 8 + sum(len(put.key) + len(put.value or b"") + 16 for put in puts)


def plan(
    batches: Sequence[Batch], held: Mapping[str, int], last: int
) -> tuple[list[int | Conflict], list[Run]]:
    """The answer to each batch, given that every run goes through; and the runs.

    `held`: revisions of the expected keys; absent means that there is none.
    """
    results: list[int | Conflict] = []
    runs: list[Run] = []
    now: dict[str, int] = dict(held)
    for place, batch in enumerate(batches):
        conflict = _conflict(batch, now)
        if conflict is not None:
            results.append(conflict)
            continue
        last += 1
        if not runs or not runs[-1].takes(batch.puts):
            runs.append(Run(last, place))
        runs[-1].add(batch.puts)
        now.update((put.key, 0 if put.value is None else last) for put in batch.puts)
        results.append(last)
    return results, runs


def _conflict(batch: Batch, now: Mapping[str, int]) -> Conflict | None:
    for key, wanted in batch.expected.items():
        found = now.get(key, 0)
        if found != wanted:
            return Conflict(f"{key}: expected revision {wanted}, found {found}")
    return None


def pieces(outcome: Mapping[str, Held]) -> Iterator[list[tuple[str, Held]]]:
    """What `now/` still lacks, a transaction at a time."""
    piece: list[tuple[str, Held]] = []
    size = 0
    for key, held in outcome.items():
        weight = len(key) + len(held.value or b"")
        if piece and (len(piece) == MAX_KEYS or size + weight > 2 * MAX_BYTES):
            yield piece
            piece, size = [], 0
        piece.append((key, held))
        size += weight
    yield piece
