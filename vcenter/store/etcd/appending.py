"""Appending a group: cut into runs, committed one after the other to the end of the history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common.clock import Clock
from common.pb.etcd import rpc_pb2 as pb
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Forgotten, Refused, Unreachable
from vcenter.store.etcd.layout import Keys, read_held
from vcenter.store.etcd.opened import Opened
from vcenter.store.etcd.plan import MAX_KEYS, Run, plan
from vcenter.store.port import Batch, Conflict, OutcomeUnknown, Overtaken, WriteFailed

UNUSED_S = 0.3  # for so long the pen waits for who took it


class Appending:
    def __init__(self, opened: Opened, clock: Clock) -> None:
        self._opened = opened
        self._clock = clock
        self._returning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lock = asyncio.Lock()
        self._losses = 0  # in a row

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None
    ) -> list[int | Conflict]:
        """As `Store.append`."""
        results: list[int | Conflict] = []
        async with self._lock:
            try:
                while len(results) < len(batches):
                    rest = batches[len(results) :]
                    if after is None:
                        results += await self._some(rest, at_ms)
                    else:
                        results += await self._after(rest, at_ms, after)
            except Unreachable as error:
                text = f"it is not known how much of it was written: {error}"
                raise OutcomeUnknown(text) from error
            except Refused as error:
                raise WriteFailed(f"nothing was written: {error}") from error
        return results

    async def _some(self, batches: Sequence[Batch], at_ms: int) -> list[int | Conflict]:
        """As many as go through before somebody else writes."""
        held = await self._look(sorted({key for b in batches for key in b.expected}))
        results, runs = plan(batches, held, self._opened.head.revision)
        return results[: await self._commit(runs, at_ms, len(batches))]

    async def _after(
        self, batches: Sequence[Batch], at_ms: int, after: int
    ) -> list[int | Conflict]:
        """All of them, but those that come after somebody else has written. Who has lost twice
        gets the pen, and then finds the history as it will be when the caller comes again."""
        opened = self._opened
        done: list[int | Conflict] = []
        if opened.head.revision == after:
            results, runs = plan([Batch(b.puts, {}) for b in batches], {}, after)
            done = results[: await self._commit(runs, at_ms, len(batches))]
        lost = len(batches) - len(done)
        self._losses = self._losses + 1 if lost else 0
        await opened.pen.give_back()
        if self._losses > 1:
            await opened.pen.take()
            opened.head, _ = await opened.log.head()
            self._returning.cancel()
            self._returning = asyncio.create_task(self._return_unused())
        return done + [Overtaken(opened.head.revision)] * lost

    async def _return_unused(self) -> None:
        """The caller may have found that there is nothing left to write."""
        await self._clock.sleep(UNUSED_S)
        async with self._lock:
            await self._opened.pen.give_back()

    def close(self) -> None:
        self._returning.cancel()

    async def _commit(self, runs: Sequence[Run], at_ms: int, count: int) -> int:
        """How many of the batches need not be looked at again."""
        opened = self._opened
        for run in runs:
            new = await opened.log.commit(opened.head, run, at_ms)
            if new is None:
                opened.head, _ = await opened.log.head()
                return run.start
            opened.head = new
        return count

    async def _look(self, keys: Sequence[str]) -> dict[str, int]:
        """At which revisions the keys were written last, all as of the head that we then know."""
        opened = self._opened
        while True:
            asked = [etcd.get(opened.keys.now(key)) for key in keys]
            opened.head, answer = await opened.log.settled(*asked[:MAX_KEYS])
            held = _revisions(opened.keys, answer, 2)
            try:
                for start in range(MAX_KEYS, len(asked), MAX_KEYS):
                    more = asked[start : start + MAX_KEYS]
                    for op in more:
                        op.request_range.revision = answer.header.revision
                    found = await opened.client.transact(pb.TxnRequest(success=more))
                    held |= _revisions(opened.keys, found, 0)
                return held
            except Forgotten:
                continue


def _revisions(keys: Keys, answer: pb.TxnResponse, start: int) -> dict[str, int]:
    found = {}
    for place in range(start, len(answer.responses)):
        for kv in etcd.found(answer, place):
            held = read_held(kv.value)
            found[keys.name_of(kv.key)] = 0 if held.value is None else held.revision
    return found
