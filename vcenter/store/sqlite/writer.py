"""The one connection that writes. Every write is one transaction under one lock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiosqlite

from vcenter.store.port import Batch, Conflict, WriteFailed
from vcenter.store.sqlite import schema
from vcenter.store.sqlite.group import Plan, expected_keys, plan

_SLICE_REVISIONS = 4096
_KEYS_PER_SELECT = (1, 16, 128, 1024)  # few sizes, so that the statements stay prepared


class Writer:
    """`revision` is the last durable one."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self.revision = 0

    async def refresh(self) -> None:
        ((last,),) = await self._connection.execute_fetchall(schema.LAST)
        self.revision = last

    async def append(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        async with self._transaction():
            held = await self._held(expected_keys(batches))
            group = plan(batches, held, self.revision, at_ms)
            if group.log:
                await self._write(group)
        self.revision = group.revision
        return group.results

    async def compact(self, before_ms: int) -> tuple[int, bool]:
        """Drop one slice. Returns the revision after which history starts, and whether another
        slice may follow. History stays contiguous: even if the wall clock was once set back, it
        starts at the first revision that is young enough."""
        async with self._transaction():
            compacted = await self._number(schema.COMPACTED)
            end = min(compacted + _SLICE_REVISIONS, self.revision)
            bounds = (schema.start_of(compacted + 1), schema.start_of(end + 1))
            kept = await self._number(schema.FIRST_KEPT, (*bounds, before_ms))
            cut = schema.revision_of(kept) - 1 if kept else end
            if cut > compacted:
                await self._both(
                    self._connection.execute(schema.DROP, (schema.start_of(cut + 1),)),
                    self._connection.execute(schema.SET_COMPACTED, (cut,)),
                )
        return cut, not kept and end < self.revision

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Commit what is done inside, or undo it whole. Undoing is not left half done when the
        task is cancelled, for then the next write would find it on the connection."""
        async with self._lock:
            try:
                yield
                await self._connection.commit()
            except sqlite3.Error as error:
                await self._undo()
                raise WriteFailed(f"nothing was written: {error}") from error
            except BaseException:
                await asyncio.shield(asyncio.create_task(self._undo()))
                raise

    async def _undo(self) -> None:
        """A commit that was under way when its task was cancelled may have gone through: so the
        revision is read again, not remembered. Where even that fails, the old one is true: a disk
        that cannot be read has taken no commit."""
        with suppress(sqlite3.Error):
            await self._connection.rollback()
            await self.refresh()

    async def _write(self, group: Plan) -> None:
        work = [self._connection.executemany(schema.ADD_LOG, group.log)]
        if puts := group.puts():
            work.append(self._connection.executemany(schema.PUT, puts))
        if deletes := group.deletes():
            work.append(self._connection.executemany(schema.DELETE, deletes))
        await self._both(*work)

    async def _both(self, *work: Any) -> None:
        """Queue statements to the connection's thread in one go: it runs them in order, and each
        wait for it costs as much as a small statement. All are over before any error is raised."""
        results = await asyncio.gather(*map(_finished, work), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _held(self, keys: Sequence[str]) -> dict[str, int]:
        """Stored revisions of the keys that exist: SELECTs of a few fixed sizes, padded."""
        held: dict[str, int] = {}
        start = 0
        while start < len(keys):
            left = len(keys) - start
            size = next((s for s in _KEYS_PER_SELECT if s >= left), _KEYS_PER_SELECT[-1])
            chunk = [*keys[start : start + size]]
            chunk += chunk[-1:] * (size - len(chunk))
            statement = schema.select_revisions(size)
            held.update(await self._connection.execute_fetchall(statement, chunk))  # type: ignore[arg-type]
            start += size
        return held

    async def _number(self, statement: str, parameters: Sequence[int] = ()) -> int:
        rows = list(await self._connection.execute_fetchall(statement, parameters))
        return int(rows[0][0]) if rows else 0


def _finished(work: Any) -> Coroutine[Any, Any, Any]:
    async def wait() -> Any:
        return await work

    return wait()
