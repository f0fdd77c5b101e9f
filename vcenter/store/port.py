"""The store's interface: an ordered log of changes to keys, as k3s's kine shows it.

Keys are text with '/' between parts (`vm/<id>`, `op/<id>`); values are opaque bytes. The revision
is the store's own counter and the only clock that orders things: every `append` gets the next one,
shared by all of its changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from common.model.value import value


@value
class Put:
    """One change. `value` None deletes the key."""

    key: str
    value: bytes | None


@value
class Batch:
    """Changes that become durable together or not at all.

    `expected` holds the revision at which each named key must have been written last (0 = must not
    exist); otherwise the append fails with `Conflict` and nothing is written.
    """

    puts: Sequence[Put]
    expected: Mapping[str, int]


@value
class Entry:
    """A batch as it was stored. `at_ms` is the wall time that the caller gave, for history."""

    revision: int
    puts: Sequence[Put]
    at_ms: int


class Record(NamedTuple):
    """A key's current value and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


Stored: TypeAlias = tuple[str, bytes, int]  # a Record's fields, as they come by the million


class Piece(NamedTuple):
    """A part of a snapshot that is read where `read` is called: here, or in another process of this
    machine, for it can be pickled. Raises `StoreUnusable`."""

    most: int  # records
    read: Callable[[], Sequence[Stored]]


def in_hand(page: Sequence[Record]) -> Piece:
    """What has been read already."""
    return Piece(len(page), partial(list, [*map(tuple, page)]))


@dataclass(frozen=True, slots=True)
class Version:
    """What a key became at a revision; `value` None: it was deleted. `at_ms` 0: the revision is
    older than the history that is kept."""

    revision: int
    value: bytes | None
    at_ms: int


class Conflict(Exception):
    """A key was not at the expected revision. Nothing of that batch was written."""


class Overtaken(Conflict):
    """Somebody else has written since: decide again once `.revision` is known."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"another replica has written, up to revision {revision}")
        self.revision = revision


class Compacted(Exception):
    """History before `.revision` is gone: take a snapshot instead."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"history starts after revision {revision}")
        self.revision = revision


class StoreUnusable(Exception):
    """The store cannot be opened (corrupt, newer schema, locked); the text says what to do."""


class WriteFailed(Exception):
    """A write was not made durable (disk full, read-only …). Nothing of it is visible."""


class OutcomeUnknown(WriteFailed):
    """Nobody can say whether a write was made durable. If it was, it will be followed."""


class Store(Protocol):
    async def open(self) -> None:
        """Open, check and migrate. Raises `StoreUnusable` and touches nothing."""
        ...

    async def close(self) -> None: ...

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        """Group commit: each batch gets its own revision, all are made durable by one fsync.

        `after`: the revision on which all of it was decided. Where somebody else has written since,
        that batch and all later ones are `Overtaken`; in a store that only one process writes to
        that cannot be, and `expected` is what is checked.

        Returns, in order, the batch's revision or its Conflict; a conflict of one batch does not
        touch the others. Later batches see earlier ones. Raises `WriteFailed` if nothing was kept.
        Once called it is carried through even if the caller is cancelled.
        """
        ...

    async def revision(self) -> int:
        """The last revision; 0 in an empty store."""
        ...

    def snapshot(self) -> AsyncIterator[Sequence[Record]]:
        """Every key once, in any order, by the page; all as of one revision (that at the first
        step)."""
        ...

    def pieces(self) -> AsyncIterator[Piece]:
        """The same for a start, in pieces that others may read. They agree only as long as nobody
        writes: who writes meanwhile is to be heard of by `read`, from `revision` before this on."""
        ...

    def read(self, after: int) -> AsyncIterator[Entry]:
        """Entries with revision > `after`, in order. Raises `Compacted` if some are gone."""
        ...

    async def compact(self, before_ms: int) -> int:
        """Drop history older than this wall time; current values stay, and so does what every key
        was at the revision that is returned, after which history starts."""
        ...

    # ---- what was; all of it raises `Compacted` for what is not kept any more ----

    async def since_ms(self) -> int:
        """The wall time from which on history is whole; 0: nothing was ever dropped."""
        ...

    async def revision_at(self, at_ms: int) -> int:
        """The last revision of that time or before."""
        ...

    async def value_at(self, key: str, revision: int) -> Record | None:
        """The key as it was at the revision; None: it did not exist."""
        ...

    async def versions(self, key: str, limit: int) -> list[Version]:
        """The newest `limit` states of the key, the newest first. The oldest that can be had is
        the state in which history begins."""
        ...

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        """Keys with this prefix that, at the revision or at some time before, had a value with
        this text in it. Of those that were not touched since history began only such are named
        whose old value had to be put aside; the caller knows their present. Reads all that is
        kept, so it is for questions that people ask, not for machines."""
        ...
