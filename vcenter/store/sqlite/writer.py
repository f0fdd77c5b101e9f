"""The one connection that writes, in a thread of its own. Every write is one transaction.

Everything here blocks. The store runs it in one thread, one after the other, to its end: no
cancelled task can leave a transaction half done, and the event loop decides the next group while
the disk takes this one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import TypeVar

from vcenter.store.port import Batch, Conflict, WriteFailed
from vcenter.store.sqlite import schema
from vcenter.store.sqlite.group import Plan, keys_of, plan

_SLICE_ROWS = 256  # a few milliseconds, which is what a write may have to wait
_MOST = 1024  # rows or keys to a statement
_NO_ROW = (None, None, None, None, None)
T = TypeVar("T")
N = TypeVar("N")


class Writer:
    """`revision` is the last durable one. `connect` gives a connection in autocommit mode."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._db = connect()
        self._sound = True
        self._configure()
        self.revision = self._number(schema.LAST)
        self._compacted = self._number(schema.COMPACTED)

    def close(self) -> None:
        self._db.close()

    def append(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        with self._transaction():
            held = self._held(keys_of(batches))
            group = plan(batches, held, self.revision, at_ms)
            if group.log:
                self._put_aside(group.old(held, self._compacted))
                self._write(group)
        self.revision = group.revision
        return group.results

    def compact(self, before_ms: int) -> tuple[int, bool]:
        """Drop one slice. Returns the revision after which history starts, and whether another
        slice may follow. History stays contiguous: even if the wall clock was once set back, it
        starts at the first revision that is young enough."""
        with self._transaction():
            end = self._slice_end()
            kept = self._number(schema.FIRST_KEPT, (end, before_ms))
            until = schema.start_of(schema.revision_of(kept)) if kept else end
            dropped = self._number(schema.LAST_DROPPED, (until,), none=-1)
            if dropped >= 0:
                self._drop(until, dropped)
        if dropped >= 0:
            self._compacted = schema.revision_of(until) - 1
        return self._compacted, not kept and schema.revision_of(end) <= self.revision

    def _slice_end(self) -> int:
        """Some rows further, but always at least one whole revision."""
        first = self._number(schema.FIRST, none=schema.start_of(self.revision))
        last = self._number(schema.SLICE_END, (_SLICE_ROWS,))
        revision = schema.revision_of(last) if last else self.revision + 1
        return schema.start_of(max(revision, schema.revision_of(first) + 1))

    def _drop(self, until: int, at_ms: int) -> None:
        for statement in (schema.FORGET_BASE, schema.KEEP_BASE, schema.DROP):
            self._db.execute(statement, (until,))
        self._db.execute(schema.SET_COMPACTED, (schema.revision_of(until) - 1, at_ms))

    def _put_aside(self, keys: Sequence[str]) -> None:
        """Old values that this group writes over, of keys that history has not seen change."""
        for some in _portions(keys, None):
            self._db.execute(schema.put_aside(len(some)), some)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is done inside, or undo it whole."""
        try:
            if not self._sound:
                self._begin_again()
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            self._sound = False
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise WriteFailed(f"nothing was written: {error}") from error
            raise

    def _begin_again(self) -> None:
        """After an error nothing is believed of the old connection, nor of what the system says it
        has written: pages of a failed fsync may be gone, and a commit that was refused may lie
        whole in the WAL, for a crash to bring back. So it is copied out and emptied (and is then
        as it was when it was synchronized last) before anything is written after it."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._db = self._connect()
        self._configure()
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        last = self._number(schema.LAST)
        if busy:
            raise sqlite3.OperationalError("a long read is under way; the log cannot be emptied")
        if last != self.revision:
            text = f"revision {last} is there, {self.revision} was written; restart the vCenter"
            raise sqlite3.DatabaseError(text)
        self._sound = True

    def _configure(self) -> None:
        for statement in schema.WRITER_SETTINGS:
            self._db.execute(statement)

    def _write(self, group: Plan) -> None:
        for some in _portions(group.log, _NO_ROW):
            self._db.execute(schema.add_log(len(some)), [*chain.from_iterable(some)])
        first = group.log[0][:1]
        if group.deletes():
            self._db.execute(schema.DELETE, first)
        self._db.execute(schema.PUT, first)

    def _held(self, keys: Sequence[str]) -> dict[str, int]:
        """Stored revisions of the keys that exist."""
        held: dict[str, int] = {}
        for some in _portions(keys, None):
            (found,) = self._db.execute(schema.select_revisions(len(some)), some).fetchone()
            for one in found.split(",") if found else ():
                place, _, revision = one.partition(" ")
                held[str(some[int(place)])] = int(revision)
        return held

    def _number(self, statement: str, parameters: Sequence[int] = (), none: int = 0) -> int:
        row = self._db.execute(statement, parameters).fetchone()
        return int(row[0]) if row is not None else none


def _portions(rows: Sequence[T], nothing: N) -> Iterator[Sequence[T | N]]:
    """All of them, filled up to sizes of which there are few, so that the statements stay
    prepared: a thousand rows are one call, and so are three."""
    for start in range(0, len(rows), _MOST):
        some = rows[start : start + _MOST]
        size = 1 << (len(some) - 1).bit_length()
        yield [*some, *repeat(nothing, size - len(some))]
