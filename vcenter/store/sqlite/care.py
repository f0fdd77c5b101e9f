"""Looking after the database: check, back up, restore, compact. All of it blocks.

Checking and backing up go on beside a serving vCenter, by a connection that only reads; restoring
and compacting need the file to themselves.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.model.revision import next_generation
from vcenter.store.port import StoreUnusable
from vcenter.store.sqlite import file, schema
from vcenter.store.sqlite.store import SqliteStore

_KINDS = "SELECT substr(key, 1, instr(key, '/') - 1), count(*) FROM current GROUP BY 1 ORDER BY 1"
# A current value is that of the log, or older than all of it.
_ASTRAY = (
    "SELECT key FROM current, history WHERE revision > compacted AND NOT EXISTS (SELECT 1 FROM log"
    f" WHERE position >= current.revision << {schema.PART_BITS}"
    f" AND position < current.revision + 1 << {schema.PART_BITS}"
    " AND log.key = current.key AND log.value = current.value) LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Findings:
    revision: int
    kinds: dict[str, int]
    serving: bool


@contextmanager
def reading(path: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """A connection that changes nothing, and whether a vCenter has the file now."""
    if not path.is_file():
        raise StoreUnusable(f"{path} does not exist")
    with file.explained(path):
        file.check_header(path)
        fd = None
        try:
            fd = file.lock(path)
        except OSError:
            pass  # a backup on a medium that only reads: nobody serves from it
        except StoreUnusable:
            with closing(sqlite3.connect(file.uri(path, "mode=ro"), uri=True)) as db:
                db.isolation_level = None
                yield db, True
            return
        try:
            with file.untouched(path) as db:
                yield db, False
        finally:
            if fd is not None:
                file.unlock(path, fd)


def check(path: Path, readable: Callable[[str, bytes], object]) -> Findings:
    """Every page, every index, every record. Raises `StoreUnusable`, or what `readable` does."""
    with reading(path) as (db, serving):
        db.execute("BEGIN")
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise file.damaged(path, verdict.splitlines()[-1])
        if db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION:
            astray = db.execute(_ASTRAY).fetchone()
            if astray:
                raise file.damaged(path, f"{astray[0]} is not what the log says")
        for key, value in db.execute("SELECT key, value FROM current"):
            readable(key, value)
        ((revision,),) = db.execute(schema.LAST).fetchall()
        return Findings(revision, dict(db.execute(_KINDS).fetchall()), serving)


def backup(path: Path, target: Path) -> None:
    """One whole file, as of one revision; it appears under its name when it is durable."""
    if target.exists():
        raise StoreUnusable(f"{target} exists: a backup never overwrites anything")
    with file.explained(target):
        fd, name = tempfile.mkstemp(dir=target.parent, prefix=target.name + ".part-")  # mode 0600
    try:
        with reading(path) as (db, _):
            db.execute("VACUUM INTO ?", (name,))
        with file.explained(target):
            os.fsync(fd)
            os.link(name, target)
            file.sync_folder(target.parent)
    finally:
        os.close(fd)
        Path(name).unlink(missing_ok=True)


def restore(path: Path, source: Path, now_ms: int) -> tuple[Path | None, int]:
    """Put a backup in the database's place. Returns where the old one is kept, and the revision at
    which the ledger goes on."""
    if path.resolve() == source.resolve():
        raise StoreUnusable(f"{source} is the database itself")
    fresh = file.beside(path, ".restoring")
    with _alone(path), file.explained(fresh):
        _remove(fresh)
        with reading(source) as (db, _):
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600))
            db.execute("VACUUM INTO ?", (str(fresh),))
        file.prepare(fresh)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            ((last,),) = db.execute(schema.LAST).fetchall()
            revision = next_generation(last)
            db.execute(schema.add_log(1), (schema.start_of(revision), None, None, now_ms, None))
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        return _swap(path, fresh, now_ms), revision


def compact(path: Path, before_ms: int) -> tuple[int, int]:
    """Drop old history and give its space back. Returns the size before and after."""
    if not path.is_file():
        raise StoreUnusable(f"{path} does not exist")
    before = path.stat().st_size
    asyncio.run(_drop_history(path, before_ms))
    with _alone(path), file.explained(path):
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return before, path.stat().st_size


async def _drop_history(path: Path, before_ms: int) -> None:
    store = SqliteStore(path)
    await store.open()
    try:
        await store.compact(before_ms)
    finally:
        await store.close()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with file.explained(path):
        fd = file.lock(path)
    try:
        yield
    finally:
        file.unlock(path, fd)


def _swap(path: Path, fresh: Path, now_ms: int) -> Path | None:
    """At every step a start finds the old database whole, or the new one, or refuses: never an
    empty ledger, and never the new file with the old one's WAL."""
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = next(k for n in range(1000) if not (k := file.beside(path, f".{stamp}-{n}")).exists())
    existed = path.exists()
    for suffix in ("", "-wal"):
        old = file.beside(path, suffix)
        if old.exists():
            os.link(old, file.beside(kept, suffix))
    path.unlink(missing_ok=True)  # from here on a start refuses: `.restoring` is there
    file.sync_folder(path.parent)
    for suffix in ("-wal", "-shm"):
        file.beside(path, suffix).unlink(missing_ok=True)
    fresh.rename(path)
    file.sync_folder(path.parent)
    return kept if existed else None


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            file.beside(path, suffix).unlink()
