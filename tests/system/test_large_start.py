"""A start that other processes help with fills the table as one that nobody helps with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.codec.checker import Checker
from common.codec.vm import from_vm
from common.model.server import Tenant
from common.model.vm import Location, Tombstone, VmRecord, VmState
from common.pb.vsignal.v1 import types_pb2
from deploy.bench.population import Population
from tests.support import nouns
from vcenter.core import indexes, keys
from vcenter.core.table import Change, Table
from vcenter.ledger.helpers import helping
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.loading import Loader, load
from vcenter.ledger.records import Unreadable, decode, encode
from vcenter.ledger.splitting import Page
from vcenter.store.port import Batch, Piece, Put, Record, Stored, StoreUnusable, in_hand
from vcenter.store.sqlite import SqliteStore

COUNT, PAGE = 3000, 100
RECORDS = [Record(*row) for row in Population(COUNT).rows()]


async def pieces(records: Sequence[Record]) -> AsyncIterator[Piece]:
    for at in range(0, len(records), PAGE):
        yield in_hand(records[at : at + PAGE])


def alone() -> Table:
    table = Table()
    loader = Loader(table)
    loader.add(RECORDS)
    loader.finish()
    return table


def children() -> list[int]:
    """Helpers of this process, by the kernel's word."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found if b"vcenter.ledger.helpers" in command_line(pid)]


def command_line(pid: str) -> bytes:
    """Empty if there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("few", [0, COUNT // 2, 10 * COUNT])
async def test_whoever_takes_them_apart_the_table_is_the_same(few: int) -> None:
    table, expected = Table(), alone()
    await load(table, pieces(RECORDS), few)
    there = set(expected.find(indexes.VMS))
    assert len(there) == COUNT and set(table.find(indexes.VMS)) == there
    assert all(table.get(key) == expected.get(key) for key in there)
    assert not children()


async def test_what_helpers_that_are_killed_leave_is_done_here() -> None:
    table = Table()
    loader, killed = Loader(table), 0

    def merge(page: Page) -> None:
        nonlocal killed
        for pid in children():
            os.kill(pid, signal.SIGKILL)
            killed += 1
        loader.merge(page)

    async with helping(merge) as helpers:
        async for piece in pieces(RECORDS):
            await helpers.take(piece.read)
    loader.finish()
    assert killed
    assert len(set(table.find(indexes.VMS))) == COUNT


async def test_a_record_that_cannot_be_read_is_named_and_helpers_end() -> None:
    bad = RECORDS[-1]._replace(value=RECORDS[-1].value[:-3])
    with pytest.raises(Unreadable, match=bad.key):
        await load(Table(), pieces([*RECORDS[:-1], bad]), few=0)
    assert not children()


@pytest.mark.parametrize("many", range(1, 10))
async def test_what_fails_while_work_waits_is_raised_and_nothing_else(many: int) -> None:
    """However much is under way when the last page has been given."""

    def merge(page: Page) -> None:
        raise Unreadable("the first")

    with pytest.raises(Unreadable, match="the first"):
        async with helping(merge) as helpers:
            for at in range(many):
                await helpers.take(in_hand(RECORDS[at * PAGE : (at + 1) * PAGE]).read)
    assert not children()


async def test_a_helper_ends_with_whoever_began_it() -> None:
    command = [sys.executable, "-m", "vcenter.ledger.helpers"]
    helper = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    assert helper.stdin is not None
    helper.stdin.close()  # as the kernel does when a process has been killed
    assert await asyncio.wait_for(helper.wait(), 60) == 0


async def test_helpers_read_a_database_themselves(tmp_path: Path) -> None:
    path, table, expected = tmp_path / "ledger.db", Table(), alone()
    Population(COUNT).write(path)
    store = SqliteStore(path)
    await store.open()
    await load(table, store.pieces(), few=0)
    await store.close()
    there = set(expected.find(indexes.VMS))
    assert set(table.find(indexes.VMS)) == there
    assert all(table.get(key) == expected.get(key) for key in there)


def unreadable() -> list[Stored]:
    raise StoreUnusable("a page of it is damaged")


async def test_what_a_helper_cannot_read_is_said_here() -> None:
    with pytest.raises(StoreUnusable, match="a page of it"):
        async with helping(Loader(Table()).merge) as helpers:
            await helpers.take(unreadable)
    assert not children()


def odd() -> list[Record]:
    """What is not read by position, or is no VM at all."""
    vm = nouns.vm(1, interfaces=[nouns.interface(1, vni=100, ips=[nouns.ip(1), "2001:db8::1"])])
    shouted = nouns.vm(2, interfaces=[nouns.interface(2, vni=100, ips=["2001:DB8::2"])])
    longest = nouns.vm(3, name="y" * 200, interfaces=[nouns.interface(3, vni=100)])
    record = types_pb2.VmRecord(vm=vm, operation_id="op-1")
    record.location.server_id, record.location.epoch = "h1", 3
    record.location.state = types_pb2.VM_STATE_RUNNING
    values = {keys.vm(vm.vm_id): record.SerializeToString()}
    for other in (shouted, longest):
        record.vm.CopyFrom(other)
        values[keys.vm(other.vm_id)] = record.SerializeToString()
    moved = Location("h1", VmState.SHUT_OFF, 7)
    gone = VmRecord(from_vm(Checker(), nouns.vm(4)), moved, 1_000)
    for key, kept in (
        (keys.gone(gone.vm.vm_id), Tombstone(gone.vm.vm_id, 7, 2_000, gone)),
        (keys.tenant("blue"), Tenant("blue")),
    ):
        values[key] = encode(kept) or b""
    return [Record(key, value, number) for number, (key, value) in enumerate(values.items(), 1)]


async def database(path: Path, records: Sequence[Record]) -> SqliteStore:
    """It is open."""
    store = SqliteStore(path)
    await store.open()
    for record in records:
        await store.append([Batch((Put(record.key, record.value),), {})], 1)
    return store


async def test_odd_records_come_to_the_same_by_helpers(tmp_path: Path) -> None:
    records, table, expected = odd(), Table(), Table()
    for record in records:
        expected.apply(record.revision, [Change(record.key, decode(record.key, record.value))])
    store = await database(tmp_path / "ledger.db", records)
    await load(table, store.pieces(), few=0)
    await store.close()
    for record in records:
        assert table.get(record.key) == expected.get(record.key) is not None
    shouted = table.get(records[1].key)
    assert isinstance(shouted, VmRecord) and shouted.vm.interfaces[0].ips == ("2001:db8::2",)


@pytest.mark.parametrize(
    ("key", "value"),
    [("vm/x", b"\x0a\x7f"), ("gone/x", b"\x0a\x7f"), ("unheard/of", b""), ("vm/y", b"")],
)
async def test_a_row_that_is_damaged_is_refused_by_its_key(
    key: str, value: bytes, tmp_path: Path
) -> None:
    store = await database(tmp_path / "ledger.db", [*odd(), Record(key, value, 0)])
    with pytest.raises(Unreadable, match=key):
        await load(Table(), store.pieces(), few=0)
    await store.close()


async def test_a_page_that_is_damaged_is_told_as_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Population(COUNT).write(path)
    store = SqliteStore(path)
    await store.open()
    pieces = [piece async for piece in store.pieces()]
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xff" * 40 * 4096)
    with pytest.raises(StoreUnusable, match=r"ledger\.db is damaged"):
        async with helping(Loader(Table()).merge) as helpers:
            for piece in pieces:
                await helpers.take(piece.read)
    assert not children()
    await store.close()


class Unsound(SqliteStore):
    """What was sound when it was opened is not any more when it is read."""

    async def pieces(self) -> AsyncIterator[Piece]:
        yield Piece(1, unreadable)


async def test_a_ledger_that_cannot_be_read_lets_go_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await database(path, [*odd(), Record("vm/x", b"\x0a\x7f", 0)])).close()
    for store, why in ((SqliteStore(path), "vm/x"), (Unsound(path), "a page of it is damaged")):
        with pytest.raises(StoreUnusable, match=why):
            await Ledger(store, SystemClock()).open()
    again = SqliteStore(path)  # another could not while one has it locked
    await again.open()
    await again.close()
