"""Processes that read stored VMs and take them apart while this one files them: a large start uses
all CPUs, where one Python could use one.

A helper is told on its standard input what to read (`port.Piece`, pickled), and writes what comes
of it, a `splitting.Page`, as texts, bytes and numbers by `marshal`: each behind four bytes of
length, and for nobody but the same Python. It ends when its input does, so that none outlives who
began it. Where one cannot be begun, or ends before its time, its work is done here.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import pickle
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO, TypeAlias

import structlog

from vcenter.ledger.splitting import Page, Splitter
from vcenter.store.port import Stored, StoreUnusable

log = structlog.get_logger()

_MOST = 4  # more would wait for this process, which files what they make
_WAITING = 4  # pieces that nobody has begun
_BUFFER = 1 << 20  # bytes
_LENGTH = struct.Struct("<I")
_PLAIN = 2  # the version of `marshal` that does not look for what occurs twice

Read: TypeAlias = Callable[[], Sequence[Stored]]
Work: TypeAlias = Read | None  # None: there is no more


@asynccontextmanager
async def helping(merge: Callable[[Page], None]) -> AsyncIterator[Helpers]:
    """Leaving waits until every page has been merged. What `merge` raises ends all, and is raised
    here."""
    begun: list[Process] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            helpers = Helpers(merge, tasks, begun)
            yield helpers
            await helpers.finish()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        for helper in begun:
            await _end(helper)


class Helpers:
    """`take` gives a piece to the next that is free; `merge` gets it when it is apart, here.
    They are begun with the first piece."""

    def __init__(
        self, merge: Callable[[Page], None], group: asyncio.TaskGroup, begun: list[Process]
    ) -> None:
        self._merge = merge
        self._work: asyncio.Queue[Work] = asyncio.Queue(_WAITING)
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = begun
        self._splitter = Splitter()  # for what no helper does

    async def take(self, read: Read) -> None:
        if not self._tasks:
            count = min(len(os.sched_getaffinity(0)), _MOST)
            self._tasks = [self._group.create_task(self._helper()) for _ in range(count)]
        await self._work.put(read)

    async def finish(self) -> None:
        for _ in self._tasks:
            await self._work.put(None)

    async def _helper(self) -> None:
        helper = await _begin()
        if helper is not None:
            self._begun.append(helper)
        while (read := await self._work.get()) is not None:
            self._merge(await self._apart(helper, read))

    async def _apart(self, helper: Process | None, read: Read) -> Page:
        if helper is not None and helper.returncode is None:
            try:
                return await _ask(helper, read)
            except (OSError, EOFError, asyncio.IncompleteReadError):
                log.warning("a helper of the start has ended: its work is done here")
                _kill(helper)
                await helper.wait()
        return self._splitter.split(read())


async def _begin() -> Process | None:
    command = [sys.executable, "-m", __name__]
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=_BUFFER, start_new_session=True
        )
    except OSError as error:
        log.warning("no helper for the start: its work is done here", why=str(error))
        return None


async def _ask(helper: Process, read: Read) -> Page:
    assert helper.stdin is not None and helper.stdout is not None
    said = pickle.dumps(read)
    helper.stdin.write(_LENGTH.pack(len(said)))
    helper.stdin.write(said)
    await helper.stdin.drain()
    (size,) = _LENGTH.unpack(await helper.stdout.readexactly(_LENGTH.size))
    return Page(*marshal.loads(await helper.stdout.readexactly(size)))


async def _end(helper: Process) -> None:
    """Its pipes are closed, too, when this returns."""
    _kill(helper)
    assert helper.stdin is not None
    helper.stdin.close()
    await helper.communicate()


def _kill(helper: Process) -> None:
    """It holds nothing that is not held here."""
    with suppress(ProcessLookupError):
        helper.kill()


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """A helper's life. What it cannot read, it leaves to who can say so."""
    splitter = Splitter()
    while head := source.read(_LENGTH.size):
        read = pickle.loads(source.read(*_LENGTH.unpack(head)))
        try:
            records = read()
        except StoreUnusable:
            return
        said = marshal.dumps(tuple(splitter.split(records)), _PLAIN)
        sink.write(_LENGTH.pack(len(said)))
        sink.write(said)
        sink.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
