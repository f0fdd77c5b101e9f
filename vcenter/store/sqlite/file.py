"""The database as a file: who may use it, is it ours, is it whole. All before it is touched.

Everything here blocks; the store runs it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from vcenter.store.port import StoreUnusable
from vcenter.store.sqlite.schema import APPLICATION_ID, VERSION, migrate

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
# Checking reads every page, about 1 GB/s from cache. Beyond this size a start would take too long;
# there the snapshot that follows every start reads all that the table is made of, and reports
# damage by the same error.
_FULL_CHECK_LIMIT = 1 << 30


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def uri(path: Path, options: str) -> str:
    return f"{path.as_uri()}?{options}"


def lock(path: Path) -> int:
    """Take the store for this process; returns what `unlock` needs.

    The lock has its own file: closing any descriptor of the database itself would drop SQLite's
    own locks on it. Who gets a lock on a file that its last holder has just removed tries again.
    """
    name = beside(path, ".lock")
    while True:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if name.exists() and os.path.samestat(os.fstat(fd), name.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise StoreUnusable(
                f"{path} is in use by another vCenter: stop that one, or give this one its own file"
            ) from None
        os.close(fd)


def unlock(path: Path, fd: int) -> None:
    with suppress(OSError):  # on a disk gone read-only it stays, and does no harm
        beside(path, ".lock").unlink()
    os.close(fd)


def prepare(path: Path) -> None:
    """Make `path` a database of this version, or raise `StoreUnusable` and leave it as it was."""
    with explained(path):
        if not path.exists():
            _create(path)
        check_header(path)
        _check_content(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            migrate(db)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's and the system's words, with what to do about them."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnusable(
            f"{path} cannot be opened: {error}; close other programs that use it, and check the"
            " folder's permissions and free space"
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be opened: {error.strerror}; check the folder's permissions and space"
        ) from error


def damaged(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(
        f"{path} is damaged ({what}): keep it for inspection and restore a backup in its place"
    )


def _create(path: Path) -> None:
    """A new database appears whole or not at all: it is built aside, then linked into place."""
    if beside(path, ".restoring").exists():
        raise StoreUnusable(
            f"a restore of {path} was interrupted: run `vcenter db restore` again; what was there"
            " before is kept beside it"
        )
    if beside(path, "-wal").exists():
        raise damaged(path, "the file is missing but its -wal is there")
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".new-")  # mode 0600
    try:
        with closing(sqlite3.connect(name, isolation_level=None)) as db:
            migrate(db)
            db.execute("PRAGMA journal_mode = WAL")
        os.fsync(fd)
        os.link(name, path)
        sync_folder(path.parent)
    finally:
        os.close(fd)
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(name + suffix).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_header(path: Path) -> None:
    """Read what the file says it is, from its bytes: SQLite would touch what it opens."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        raise damaged(path, "not an SQLite database")
    version, application = struct.unpack_from(">I4xI", head, 60)
    if application != APPLICATION_ID:
        raise StoreUnusable(
            f"{path} is another program's database (application id {application:#x}):"
            " give the vCenter a file of its own"
        )
    if version > VERSION:
        raise StoreUnusable(
            f"{path} was written by a newer vCenter (schema {version}, this one knows {VERSION}):"
            " start that version, or restore a backup made before the upgrade"
        )
    if not _is_hot(path):
        _check_length(path, head)


def _check_length(path: Path, head: bytes) -> None:
    page_size, pages = struct.unpack_from(">H10xI", head, 16)
    whole = pages * (65536 if page_size == 1 else page_size)
    if path.stat().st_size < whole:
        raise damaged(path, f"{path.stat().st_size} bytes of {whole}")


def _is_hot(path: Path) -> bool:
    """After a crash part of the content is still in the WAL; it is read with it."""
    wal = beside(path, "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _check_content(path: Path) -> None:
    with untouched(path) as db:
        _quick_check(path, db)


@contextmanager
def untouched(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and leaves the folder as it was. Hold the lock."""
    hot, shm = _is_hot(path), beside(path, "-shm")
    keep_shm = shm.exists()
    options = "mode=ro" if hot else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri(path, options), uri=True, isolation_level=None)) as db:
            yield db
    finally:
        if hot and not keep_shm:
            shm.unlink(missing_ok=True)


def _quick_check(path: Path, db: sqlite3.Connection) -> None:
    small = path.stat().st_size <= _FULL_CHECK_LIMIT
    what = "" if small else "('history')"
    (verdict,) = db.execute(f"PRAGMA quick_check{what}").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict.splitlines()[-1])
    for table in ("current", "log", "history"):
        db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
