"""The tables, how they came to be (migrations by number), and the statements that use them.

`current` answers "what is", `log` "what happened". A log row's `position` is its revision and its
place in the batch, in one integer: so the log is one tree that only ever grows at its end, and a
range of revisions is a range of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

APPLICATION_ID = 0x76736967  # "vsig"
PART_BITS = 20  # a batch holds up to a million changes; 43 bits stay for the revision
MAX_PARTS = 1 << PART_BITS

STEPS: Sequence[Sequence[str]] = (
    (
        # With a rowid: keys are mostly random, and the index that they land in, and that expected
        # revisions are looked up by, stays small without the values. The price: a snapshot fetches
        # its rows out of order.
        "CREATE TABLE current (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL,"
        " revision INTEGER NOT NULL)",
        # value NULL: the key was deleted. key NULL: the batch was empty, but took its revision.
        "CREATE TABLE log (position INTEGER PRIMARY KEY, key TEXT, value BLOB,"
        " at_ms INTEGER NOT NULL)",
        "CREATE TABLE history (compacted INTEGER NOT NULL)",
        "INSERT INTO history VALUES (0)",
    ),
)
VERSION = len(STEPS)

LAST = (
    f"SELECT coalesce((SELECT max(position) >> {PART_BITS} FROM log),"
    " (SELECT compacted FROM history))"
)
COMPACTED = "SELECT compacted FROM history"
SNAPSHOT = "SELECT key, value, revision FROM current ORDER BY key"
PAGE = "SELECT position, key, value, at_ms FROM log WHERE position >= ? AND position < ? ORDER BY 1"
ADD_LOG = "INSERT INTO log VALUES (?, ?, ?, ?)"
PUT = (  # not REPLACE, which would move the row and write its index entry again
    "INSERT INTO current VALUES (?, ?, ?) ON CONFLICT (key)"
    " DO UPDATE SET value = excluded.value, revision = excluded.revision"
)
DELETE = "DELETE FROM current WHERE key = ?"
FIRST_KEPT = (
    "SELECT position FROM log WHERE position >= ? AND position < ? AND at_ms >= ?"
    " ORDER BY position LIMIT 1"
)
DROP = "DELETE FROM log WHERE position < ?"
SET_COMPACTED = "UPDATE history SET compacted = ?"

WRITER_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -65536",
    "PRAGMA secure_delete = OFF",  # Debian's default zeroes what compaction frees
    # Checkpoints every 32 MiB: a page that many groups touch goes to the main file once.
    "PRAGMA wal_autocheckpoint = 8192",
    # A slow reader keeps the WAL from restarting; afterwards it shrinks to this again.
    "PRAGMA journal_size_limit = 67108864",
)
READER_SETTINGS = (
    "PRAGMA query_only = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -65536",
)


def start_of(revision: int) -> int:
    """The first position that a revision can have."""
    return revision << PART_BITS


def revision_of(position: int) -> int:
    return position >> PART_BITS


def select_revisions(count: int) -> str:
    """Revisions of `count` keys in one statement."""
    marks = ",".join("?" * count)
    return f"SELECT key, revision FROM current WHERE key IN ({marks})"


def migrate(db: sqlite3.Connection, steps: Sequence[Sequence[str]] = STEPS) -> None:
    """Take the steps that this file has not seen; each is kept whole or not at all.

    `db` must be in autocommit mode. The checkpoint at the end brings the version into the main
    file's header, where an older program looks before it touches anything.
    """
    (done,) = db.execute("PRAGMA user_version").fetchone()
    if done == len(steps):
        return
    for number, statements in enumerate(steps[done:], done + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
