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

_SLICE_ROWS = 256  # a few milliseconds, which is what a write may have to wait
_KEYS_PER_SELECT = (1, 16, 128, 1024)  # few sizes, so that the statements stay prepared


class Writer:
    """`revision` is the last durable one."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self.revision = 0
        self._compacted = 0

    async def refresh(self) -> None:
        ((last,),) = await self._connection.execute_fetchall(schema.LAST)
        self.revision = last
        self._compacted = await self._number(schema.COMPACTED)

    async def append(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        async with self._transaction():
            expected = expected_keys(batches)
            held = await self._held(expected)
            group = plan(batches, held, self.revision, at_ms)
            if group.log:
                await self._put_aside(group.old(held, expected, self._compacted))
                await self._write(group)
        self.revision = group.revision
        return group.results

    async def compact(self, before_ms: int) -> tuple[int, bool]:
        """Drop one slice. Returns the revision after which history starts, and whether another
        slice may follow. History stays contiguous: even if the wall clock was once set back, it
        starts at the first revision that is young enough."""
        async with self._transaction():
            end = await self._slice_end()
            kept = await self._number(schema.FIRST_KEPT, (end, before_ms))
            until = schema.start_of(schema.revision_of(kept)) if kept else end
            dropped = await self._number(schema.LAST_DROPPED, (until,), none=-1)
            if dropped >= 0:
                self._compacted = schema.revision_of(until) - 1
                await self._drop(until, dropped)
        return self._compacted, not kept and schema.revision_of(end) <= self.revision

    async def _slice_end(self) -> int:
        """Some rows further, but always at least one whole revision."""
        first = await self._number(schema.FIRST, none=schema.start_of(self.revision))
        last = await self._number(schema.SLICE_END, (_SLICE_ROWS,))
        revision = schema.revision_of(last) if last else self.revision + 1
        return schema.start_of(max(revision, schema.revision_of(first) + 1))

    async def _drop(self, until: int, at_ms: int) -> None:
        await self._both(
            self._connection.execute(schema.FORGET_BASE, (until,)),
            self._connection.execute(schema.KEEP_BASE, (until,)),
            self._connection.execute(schema.DROP, (until,)),
            self._connection.execute(schema.SET_COMPACTED, (self._compacted, at_ms)),
        )

    async def _put_aside(self, keys: Sequence[str]) -> None:
        """Old values that this group writes over, of keys that history has not seen change."""
        if keys:
            await self._connection.executemany(schema.PUT_ASIDE, [(key,) for key in keys])

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

    async def _number(self, statement: str, parameters: Sequence[int] = (), none: int = 0) -> int:
        rows = list(await self._connection.execute_fetchall(statement, parameters))
        return int(rows[0][0]) if rows else none


def _finished(work: Any) -> Coroutine[Any, Any, Any]:
    async def wait() -> Any:
        return await work

    return wait()
