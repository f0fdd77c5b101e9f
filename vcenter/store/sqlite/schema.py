"""The tables, how they came to be (migrations by number), and the statements that use them.

`current` answers "what is", `log` "what happened". A log row's `position` is its revision and its
place in the batch, in one integer: so the log is one tree that only ever grows at its end, and a
range of revisions is a range of rows.

A log row's `previous` is the revision that wrote its key before; NULL: the key appears with it.
Rows with which a key appears are in no index: each is found by the revision that the key's next row
has as `previous`, or else its current value has. So a new key, of which there are thousands when a
group comes up, lands in one index at random, not in two. (0 is in the index, too: of
a key that this group has deleted before, and in rows from before there was a `previous`.)

`base` is where history begins: the value at revision `compacted` of every key that has changed
since. What has not changed since is in `current`. Together they say what was at any kept revision,
without a second copy of everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache

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
    (
        "CREATE INDEX log_by_key ON log (key, position) WHERE key IS NOT NULL",
        "CREATE TABLE base (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL,"
        " revision INTEGER NOT NULL)",
        # From when on history is whole: the wall time of revision `compacted`.
        "ALTER TABLE history ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE log ADD COLUMN previous INTEGER DEFAULT 0",
        "DROP INDEX log_by_key",
        "CREATE INDEX log_by_key ON log (key, position) WHERE previous IS NOT NULL",
    ),
)
VERSION = len(STEPS)

LAST = (
    f"SELECT coalesce((SELECT max(position) >> {PART_BITS} FROM log),"
    " (SELECT compacted FROM history))"
)
COMPACTED = "SELECT compacted FROM history"
SNAPSHOT = "SELECT key, value, revision FROM current"  # as it lies on the disk
PIECE = "SELECT key, value, revision FROM current WHERE rowid > ? AND rowid <= ?"
PIECE_END = "SELECT rowid FROM current WHERE rowid > ? ORDER BY rowid LIMIT 1 OFFSET ?"
PAGE = "SELECT position, key, value, at_ms FROM log WHERE position >= ? AND position < ? ORDER BY 1"
# What a group has added to the log, from its first position on, becomes current: deletions first,
# then the last value of each key, in key order, so that neighbours on a page are written together.
DELETE = (
    "DELETE FROM current WHERE key IN"
    " (SELECT key FROM log NOT INDEXED WHERE position >= ? AND value IS NULL)"
)
PUT = (  # not REPLACE, which would move the row and write its index entry again
    f"INSERT INTO current SELECT key, value, last >> {PART_BITS} FROM (SELECT key, value,"
    " max(position) AS last FROM log NOT INDEXED WHERE position >= ? AND key IS NOT NULL"
    " GROUP BY key) WHERE value IS NOT NULL"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision"
)
# A slice is a number of rows, not of revisions: those may have gaps (a restored ledger's do).
FIRST = "SELECT position FROM log ORDER BY position LIMIT 1"
SLICE_END = "SELECT position FROM log ORDER BY position LIMIT 1 OFFSET ?"
FIRST_KEPT = "SELECT position FROM log WHERE position < ? AND at_ms >= ? ORDER BY position LIMIT 1"
LAST_DROPPED = "SELECT at_ms FROM log WHERE position < ? ORDER BY position DESC LIMIT 1"
# What the dropped rows of a key came to: gone, still current, or changed since and put aside.
FORGET_BASE = "DELETE FROM base WHERE key IN (SELECT key FROM log NOT INDEXED WHERE position < ?)"
KEEP_BASE = (
    "INSERT INTO base SELECT key, value, revision FROM (SELECT key, value,"
    f" max(position) >> {PART_BITS} AS revision FROM log NOT INDEXED"
    " WHERE position < ? AND key IS NOT NULL GROUP BY key) AS last WHERE value IS NOT NULL AND NOT"
    " EXISTS (SELECT 1 FROM current WHERE key = last.key AND revision = last.revision)"
)
DROP = "DELETE FROM log WHERE position < ?"
SET_COMPACTED = "UPDATE history SET compacted = ?, since_ms = ?"

WRITER_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",  # what a group is put in order in
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


# Statements for many rows at a time: each is one call that holds no Python lock, where a call for
# each row would wait for the event loop's thread a thousand times. Rows and keys of NULL count for
# nothing, so that a few sizes do for any number.


@cache
def add_log(count: int) -> str:
    rows = ",".join(["(?, ?, ?, ?, ?)"] * count)
    return f"INSERT INTO log SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"


@cache
def select_revisions(count: int) -> str:
    """One text: the place of each key that exists, and its revision, `0 17,2 5`."""
    wanted = ",".join(f"({place}, ?)" for place in range(count))
    return (
        "SELECT group_concat(column1 || ' ' || revision)"
        f" FROM (VALUES {wanted}) CROSS JOIN current ON key = column2"
    )


@cache
def put_aside(count: int) -> str:
    """Before values from before history are written over."""
    return (
        "INSERT OR IGNORE INTO base SELECT key, value, revision FROM current"
        f" WHERE key IN ({','.join('?' * count)})"
        " AND revision <= (SELECT compacted FROM history)"
    )


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
