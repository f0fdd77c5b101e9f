"""The one writer: commands in, durable changes out, in order, many to an fsync.

Nobody else changes state. A command is decided against everything decided before it, replied to
when it is durable, and visible to nobody earlier (I2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from common.clock import Clock
from common.errors import Reason, Refusal
from vcenter.core.command import Command, Decision
from vcenter.core.overlay import Overlay
from vcenter.core.view import View
from vcenter.feed import Feed
from vcenter.records import encode
from vcenter.store.port import Batch, Conflict, Put, Store, WriteFailed

log = structlog.get_logger()

QUEUE = 10_000  # commands waiting; beyond that callers are told to come back
GROUP = 1_000  # commands to one fsync


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was carried out: its reply, and the revision that contains it."""

    reply: Any
    revision: int


class _Together:
    """The answers to commands that were submitted together; `future` is done when all are in."""

    def __init__(self, count: int) -> None:
        self.future: asyncio.Future[list[Done | Exception]]
        self.future = asyncio.get_running_loop().create_future()
        self._answers: list[Done | Exception | None] = [None] * count
        self._left = count

    def answer(self, place: int, result: Done | Exception) -> None:
        if self._answers[place] is None:
            self._answers[place] = result
            self._left -= 1
            if not self._left and not self.future.done():
                self.future.set_result([a for a in self._answers if a is not None])


@dataclass(slots=True)
class _Waiting:
    command: Command
    together: _Together
    place: int


class Writer:
    """`submit` from anywhere; `run` is one task, owned by the composition."""

    def __init__(self, feed: Feed, store: Store, clock: Clock, limit: int = QUEUE) -> None:
        self._feed = feed
        self._store = store
        self._clock = clock
        self._limit = limit
        self._queue: asyncio.Queue[list[_Waiting]] = asyncio.Queue()
        self._queued = 0
        self._closing = False

    async def submit(self, command: Command) -> Done:
        """Returns when it is durable. Raises `Refusal` when it was not carried out.

        A caller that is cancelled while the group is being written does not stop it: the outcome
        is then unknown to the caller, who must read back.
        """
        (result,) = await self.submit_all((command,))
        if isinstance(result, Exception):
            raise result
        return result

    async def submit_all(self, commands: Sequence[Command]) -> list[Done | Exception]:
        """Each is carried out or not by itself; one wait for all of them, which is what makes
        thousands cheap."""
        if not commands:
            return []
        if self._closing:
            raise Refusal(Reason.SHUTTING_DOWN, "the vCenter is stopping", retry_after=1.0)
        if self._queued + len(commands) > self._limit:
            text = f"{self._limit} commands are waiting"
            raise Refusal(Reason.OVERLOADED, text, retry_after=0.5)
        self._queued += len(commands)
        together = _Together(len(commands))
        waiting = [_Waiting(command, together, n) for n, command in enumerate(commands)]
        self._queue.put_nowait(waiting)
        return await together.future

    async def run(self) -> None:
        """Until cancelled. Call `drain` first for a clean end."""
        while True:
            taken = [await self._queue.get()]
            size = len(taken[0])
            while size < GROUP and not self._queue.empty():
                taken.append(self._queue.get_nowait())
                size += len(taken[-1])
            self._queued -= size
            try:
                await self._commit([waiting for part in taken for waiting in part])
            finally:
                for part in taken:
                    part[0].together.future.cancel()  # who has no answer by now must read back
                    self._queue.task_done()

    async def drain(self) -> None:
        """Refuse new commands; return when those that were accepted are durable."""
        self._closing = True
        await self._queue.join()

    async def _commit(self, group: list[_Waiting]) -> None:
        now_ms = self._clock.now_ms()
        decided = self._decide(group, now_ms)
        writing = [(w, d) for w, d, _ in decided if d.changes]
        batches = [batch for _, d, batch in decided if d.changes]
        try:
            results = await self._store.append(batches, now_ms) if batches else []
        except WriteFailed as error:
            log.error("write failed", error=str(error), commands=len(batches))
            self._fail_all(group, error)
            return
        for (waiting, decision), result in zip(writing, results, strict=True):
            if isinstance(result, Conflict):
                _resolve(waiting, Refusal(Reason.STORE_FAILED, str(result), retry_after=0.1))
            else:
                self._feed.publish(result, decision.changes)
                self._reply(waiting, decision)
        for waiting, decision, _ in decided:
            if not decision.changes:
                self._reply(waiting, decision)

    def _decide(self, group: list[_Waiting], now_ms: int) -> list[tuple[_Waiting, Decision, Batch]]:
        overlay = Overlay(self._feed.table)
        touched: set[str] = set()
        decided = []
        for waiting in group:
            if waiting.together.future.done():
                continue  # the caller gave up before anything happened
            try:
                decision = waiting.command.decide(overlay, now_ms)
                puts = [Put(c.key, encode(c.record)) for c in decision.changes]
            except Refusal as refusal:
                decision, puts = Decision(refusal=refusal), []
            except Exception as error:
                log.exception("command failed", command=repr(waiting.command)[:500])
                _resolve(waiting, error)
                continue
            overlay.add(decision.changes)
            decided.append((waiting, decision, Batch(puts, self._expected(puts, touched))))
        return decided

    def _expected(self, puts: Sequence[Put], touched: set[str]) -> dict[str, int]:
        """Compare-and-set on every key; keys changed earlier in the group are ours already."""
        table: View = self._feed.table
        expected = {}
        for put in puts:
            if put.key not in touched:
                before = table.get(put.key)
                expected[put.key] = before.revision if before is not None else 0
                touched.add(put.key)
        return expected

    def _reply(self, waiting: _Waiting, decision: Decision) -> None:
        if decision.refusal is not None:
            _resolve(waiting, decision.refusal)
        else:
            _resolve(waiting, Done(decision.reply, self._feed.table.revision))

    def _fail_all(self, group: list[_Waiting], error: WriteFailed) -> None:
        for waiting in group:
            text = f"the store took no write: {error}"
            _resolve(waiting, Refusal(Reason.STORE_FAILED, text, retry_after=1.0))


def _resolve(waiting: _Waiting, result: Done | Exception) -> None:
    waiting.together.answer(waiting.place, result)
