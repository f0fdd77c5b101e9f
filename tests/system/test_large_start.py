"""A start that other processes help with fills the table as one that nobody helps with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from deploy.bench.population import Population
from vcenter.core import indexes
from vcenter.core.table import Table
from vcenter.ledger.helpers import helping
from vcenter.ledger.loading import Loader, load
from vcenter.ledger.records import Unreadable
from vcenter.ledger.splitting import Page
from vcenter.store.port import Record

COUNT, PAGE = 3000, 100
RECORDS = [Record(*row) for row in Population(COUNT).rows()]


async def pages(records: Sequence[Record]) -> AsyncIterator[Sequence[Record]]:
    for at in range(0, len(records), PAGE):
        yield records[at : at + PAGE]


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
    await load(table, pages(RECORDS), few)
    keys = set(expected.find(indexes.VMS))
    assert len(keys) == COUNT and set(table.find(indexes.VMS)) == keys
    assert all(table.get(key) == expected.get(key) for key in keys)
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
        async for records in pages(RECORDS):
            await helpers.take(records)
    loader.finish()
    assert killed
    assert len(set(table.find(indexes.VMS))) == COUNT


async def test_a_record_that_cannot_be_read_is_named_and_helpers_end() -> None:
    bad = RECORDS[-1]._replace(value=RECORDS[-1].value[:-3])
    with pytest.raises(Unreadable, match=bad.key):
        await load(Table(), pages([*RECORDS[:-1], bad]), few=0)
    assert not children()


@pytest.mark.parametrize("many", range(1, 10))
async def test_what_fails_while_work_waits_is_raised_and_nothing_else(many: int) -> None:
    """However much is under way when the last page has been given."""

    def merge(page: Page) -> None:
        raise Unreadable("the first")

    with pytest.raises(Unreadable, match="the first"):
        async with helping(merge) as helpers:
            for at in range(many):
                await helpers.take(RECORDS[at * PAGE : (at + 1) * PAGE])
    assert not children()


async def test_a_helper_ends_with_whoever_began_it() -> None:
    command = [sys.executable, "-m", "vcenter.ledger.helpers"]
    helper = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    assert helper.stdin is not None
    helper.stdin.close()  # as the kernel does when a process has been killed
    assert await asyncio.wait_for(helper.wait(), 60) == 0
