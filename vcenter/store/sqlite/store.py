"""The store itself: one writer, any number of readers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from vcenter.store.port import (
    Batch,
    Compacted,
    Conflict,
    Entry,
    Piece,
    Put,
    Record,
    Stored,
    StoreUnusable,
    Version,
)
from vcenter.store.sqlite import file, schema
from vcenter.store.sqlite.history import History
from vcenter.store.sqlite.writer import Writer

T = TypeVar("T")

_SNAPSHOT_ROWS = 2048
_PIECE_ROWS = 8192  # most of what VMs have in common occurs in each piece, and is told with it
_PAGE_REVISIONS = 512
_LAST_ROW = (1 << 63) - 1  # that there can be


@dataclass(slots=True)
class _Opened:
    thread: Executor
    writer: Writer
    reader: aiosqlite.Connection
    history: History
    resources: AsyncExitStack


class SqliteStore:
    """Writes go through one connection in one thread, one at a time: a caller that is cancelled
    leaves, its write does not. Reads never wait for writes (WAL)."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).resolve()
        self._opened: _Opened | None = None
        self._writes: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        if self._opened:
            raise RuntimeError("the store is already open")
        if not self._path.parent.is_dir():
            raise StoreUnusable(f"{self._path.parent} does not exist: create it for the vCenter")
        async with AsyncExitStack() as stack:
            self._lock(stack)
            await asyncio.to_thread(file.prepare, self._path)
            thread = stack.enter_context(ThreadPoolExecutor(1, "ledger-writer"))
            with file.explained(self._path):
                writer = await _in(thread, Writer, partial(_connect_writer, self._path))
            stack.push_async_callback(_in, thread, writer.close)
            reader = await stack.enter_async_context(_connect(self._path))
            await _run(reader, schema.READER_SETTINGS)
            past = await stack.enter_async_context(_connect(self._path))
            await _run(past, schema.READER_SETTINGS)
            opened = _Opened(thread, writer, reader, History(past), stack.pop_all())
            self._opened = opened

    async def close(self) -> None:
        """Waits for the writes under way. What a snapshot still reads, it may read to its end."""
        opened, self._opened = self._opened, None
        if opened:
            await self._carry_through(self._close(opened))

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        return await self._write(self._use().writer.append, batches, at_ms)

    async def revision(self) -> int:
        return self._use().writer.revision

    async def snapshot(self) -> AsyncIterator[Sequence[Record]]:
        """Reads by a connection of its own: as long as its one statement runs, it sees one state.
        The WAL cannot restart meanwhile, so a reader should not dawdle."""
        self._use()
        with file.explained(self._path):
            async with _connect(self._path) as reader:
                await _run(reader, schema.READER_SETTINGS)
                cursor = await reader.execute(schema.SNAPSHOT)
                while rows := await cursor.fetchmany(_SNAPSHOT_ROWS):
                    yield [*map(Record._make, rows)]

    async def pieces(self) -> AsyncIterator[Piece]:
        """Rows as they lie in the file, each piece by a connection and a statement of its own. What
        these see is one state, for at a start nobody writes: the file is locked for this process,
        and whoever has opened this store has not appended anything yet."""
        self._use()
        after = 0
        with file.explained(self._path):
            async with _connect(self._path) as reader:  # whose cache goes with it
                while after < _LAST_ROW:
                    bounds = (after, _PIECE_ROWS - 1)
                    found = await reader.execute_fetchall(schema.PIECE_END, bounds)
                    last = next((row[0] for row in found), _LAST_ROW)
                    yield Piece(_PIECE_ROWS, partial(_read_piece, self._path, after, last))
                    after = last

    async def read(self, after: int) -> AsyncIterator[Entry]:
        """Up to the revision that is last now, in pages: a slow reader holds nothing open, but
        compaction may overtake it."""
        last, reached = self._use().writer.revision, max(after, 0)
        while reached < last:
            until = min(reached + _PAGE_REVISIONS, last)
            with file.explained(self._path):
                entries = await self._page(reached, until)
            if not entries or entries[0].revision != reached + 1:
                raise Compacted(await self._compacted())
            for entry in entries:
                yield entry
            reached = until

    async def compact(self, before_ms: int) -> int:
        """In slices, between which appends get their turn."""
        compacted, more = 0, True
        while more:
            compacted, more = await self._write(self._use().writer.compact, before_ms)
        return compacted

    async def since_ms(self) -> int:
        return (await self._use().history.begins())[1]

    async def revision_at(self, at_ms: int) -> int:
        return await self._use().history.revision_at(at_ms, self._use().writer.revision)

    async def value_at(self, key: str, revision: int) -> Record | None:
        return await self._use().history.value_at(key, revision)

    async def versions(self, key: str, limit: int) -> list[Version]:
        return await self._use().history.versions(key, limit)

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        return await self._use().history.mentions(prefix, text, until)

    async def _page(self, after: int, until: int) -> list[Entry]:
        bounds = (schema.start_of(after + 1), schema.start_of(until + 1))
        rows = await self._use().reader.execute_fetchall(schema.PAGE, bounds)
        groups = groupby(rows, key=lambda row: schema.revision_of(row[0]))
        return [_entry(revision, list(group)) for revision, group in groups]

    async def _compacted(self) -> int:
        ((compacted,),) = await self._use().reader.execute_fetchall(schema.COMPACTED)
        return int(compacted)

    def _use(self) -> _Opened:
        if not self._opened:
            raise RuntimeError("the store is not open")
        return self._opened

    def _lock(self, stack: AsyncExitStack) -> None:
        """Not in a thread: if we were cancelled while waiting for it, nobody would unlock."""
        try:
            fd = file.lock(self._path)
        except OSError as error:
            raise StoreUnusable(f"{self._path} cannot be locked: {error.strerror}") from error
        stack.callback(file.unlock, self._path, fd)

    async def _write(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self._carry_through(_in(self._use().thread, work, *arguments))

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _close(self, opened: _Opened) -> None:
        pending = self._writes - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending)
        await opened.resources.aclose()


def _connect(path: Path) -> aiosqlite.Connection:
    """Never creates."""
    return aiosqlite.connect(file.uri(path, "mode=rw"), uri=True, isolation_level=None)


def _read_piece(path: Path, after: int, last: int) -> list[Stored]:
    """In any process, beside the one that has the file locked."""
    where = file.uri(path, "mode=ro")
    with file.explained(path), closing(sqlite3.connect(where, uri=True)) as db:
        return db.execute(schema.PIECE, (after, last)).fetchall()


def _connect_writer(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(file.uri(path, "mode=rw"), uri=True, isolation_level=None)


async def _in(thread: Executor, work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)


async def _run(connection: aiosqlite.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        await connection.execute_fetchall(statement)


def _entry(revision: int, rows: Sequence[Any]) -> Entry:
    puts = tuple(Put(key, value) for _, key, value, _ in rows if key is not None)
    return Entry(revision, puts, rows[0][3])
