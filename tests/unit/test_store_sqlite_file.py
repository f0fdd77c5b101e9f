"""What the SQLite store does with files that it cannot use: says so, and leaves them alone."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from vcenter.store.port import Batch, Put, Record, StoreUnusable, Version
from vcenter.store.sqlite import SqliteStore
from vcenter.store.sqlite.schema import STEPS, VERSION, migrate, start_of


async def filled(path: Path, rows: int = 500) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.append([Batch((Put(f"vm/{i}", b"x" * 200),), {}) for i in range(rows)], 1)
    await store.close()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}


def copy_as_a_power_cut_would(path: Path, to: Path) -> None:
    for suffix in ("", "-wal"):
        Path(f"{to}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


def overwrite(path: Path, offset: int, junk: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(junk)


def swap_pages(path: Path, one: int, other: int) -> None:
    """Each is sound in itself, as after a write that the disk put in the wrong place."""
    content, size = path.read_bytes(), 4096
    first, second = (content[size * n : size * (n + 1)] for n in (one, other))
    overwrite(path, size * one, second)
    overwrite(path, size * other, first)


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a database " * 50), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "stub": (lambda path: os.truncate(path, 50), "damaged"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 4096), "damaged"),
    "cut inside a page": (lambda path: os.truncate(path, path.stat().st_size - 100), "damaged"),
    "overwritten": (lambda path: overwrite(path, 4096 * 3, os.urandom(8192)), "damaged"),
    "pages misplaced": (lambda path: swap_pages(path, 9, 10), r"damaged .* out of order"),
    "no table": (lambda path: sql(path, "DROP TABLE log"), "no such table"),
    "newer": (lambda path: sql(path, f"PRAGMA user_version = {VERSION + 1}"), "newer vCenter"),
    "foreign": (lambda path: sql(path, "PRAGMA application_id = 1"), "another program"),
}


@pytest.mark.parametrize("name", SPOILERS)
async def test_an_unusable_file_is_named_and_left_alone(name: str, tmp_path: Path) -> None:
    spoil, words = SPOILERS[name]
    path = tmp_path / "ledger.db"
    await filled(path)
    spoil(path)
    before = files(tmp_path)
    with pytest.raises(StoreUnusable, match=words) as refusal:
        await SqliteStore(path).open()
    assert str(path) in str(refusal.value)
    assert files(tmp_path) == before


async def test_damage_is_found_although_the_wal_is_not_empty(tmp_path: Path) -> None:
    """After a crash, that is: the file has to be read together with its WAL."""
    path, copy = tmp_path / "ledger.db", tmp_path / "copy" / "ledger.db"
    copy.parent.mkdir()
    await filled(path)
    store = SqliteStore(path)
    await store.open()
    await store.append([Batch((Put("late", b"1"),), {})], 2)
    copy_as_a_power_cut_would(path, copy)
    await store.close()
    sound = files(copy.parent)
    overwrite(copy, 4096 * 3, os.urandom(8192))
    before = files(copy.parent)
    with pytest.raises(StoreUnusable, match="damaged"):
        await SqliteStore(copy).open()
    assert files(copy.parent) == before
    copy.write_bytes(sound["ledger.db"])
    recovered = SqliteStore(copy)
    await recovered.open()
    assert await recovered.revision() == 501
    await recovered.close()


async def test_a_wal_without_its_file_is_not_taken_for_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "ledger.db-wal").write_bytes(b"what is left")
    before = files(tmp_path)
    with pytest.raises(StoreUnusable, match="-wal"):
        await SqliteStore(tmp_path / "ledger.db").open()
    assert files(tmp_path) == before


async def test_a_store_in_use_is_refused_and_free_again_later(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "l.db"), SqliteStore(tmp_path / "sub" / ".." / "l.db")
    (tmp_path / "sub").mkdir()
    await first.open()
    with pytest.raises(StoreUnusable, match="in use by another vCenter"):
        await second.open()
    assert await first.append([Batch((Put("a", b"1"),), {})], 1) == [1]
    await first.close()
    await second.open()
    assert await second.revision() == 1
    await second.close()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="does not exist"):
        await SqliteStore(tmp_path / "none" / "ledger.db").open()


async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="directory"):
        await SqliteStore(tmp_path).open()


async def test_a_new_store_is_private_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a file?with #odd%20 name.db"
    store = SqliteStore(path)
    await store.open()
    await store.append([Batch((Put("a", b"1"),), {})], 1)
    assert modes(tmp_path) == {0o600}
    await store.close()
    assert names(tmp_path) == [path.name]


async def test_a_refused_open_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await filled(path, 3)
    sound = path.read_bytes()
    path.write_text("junk")
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable):
        await store.open()
    path.write_bytes(sound)
    await store.open()
    assert (await anext(store.snapshot()))[0] == Record("vm/0", b"x" * 200, 1)
    await store.close()


async def test_migrations_run_by_number_each_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await filled(path, 3)
    good = ("ALTER TABLE log ADD COLUMN origin TEXT",)
    bad = ("CREATE TABLE extra (a)", "CREATE TABLE extra (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError):
            migrate(db, (*STEPS, good, bad))
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
        assert db.execute("SELECT count(*) FROM log WHERE origin IS NULL").fetchone() == (3,)
        assert not db.execute("SELECT * FROM sqlite_schema WHERE name = 'extra'").fetchall()
    with pytest.raises(StoreUnusable, match="newer vCenter"):
        await SqliteStore(path).open()


async def test_history_from_before_log_rows_named_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    rows = [("a", b"1"), ("b", b"x"), ("a", b"2"), ("b", None)]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        migrate(db, STEPS[:2])
        for revision, (key, value) in enumerate(rows, 1):
            row = (start_of(revision), key, value, 10 * revision)
            db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", row)
        db.execute("INSERT INTO current VALUES ('a', ?, 3)", (b"2",))
    store = SqliteStore(path)
    await store.open()
    more = [Batch((Put("a", b"3"),), {"a": 3}), Batch((Put("b", b"y"),), {"b": 0})]
    assert await store.append(more, 50) == [5, 6]
    assert await store.versions("a", 9) == [
        Version(5, b"3", 50),
        Version(3, b"2", 30),
        Version(1, b"1", 10),
    ]
    was = [await store.value_at("b", revision) for revision in range(1, 7)]
    assert was == [None, *[Record("b", b"x", 2)] * 2, None, None, Record("b", b"y", 6)]
    await store.close()
