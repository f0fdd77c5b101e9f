"""The one writer: commands in, durable changes out, in order, many to an fsync.

Nobody else changes state. A command is decided against everything decided before it, replied to
when it is durable, and visible to nobody earlier (I2). While the store makes one group durable the
next is decided on top of it; if that one fails, what was decided on top of it is decided again. So
is what another replica was faster than, once its writes are in the table.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.value import value
from vcenter.core.command import Command, Decision
from vcenter.core.overlay import Overlay
from vcenter.core.table import Table
from vcenter.core.view import View
from vcenter.ledger.feed import Feed
from vcenter.ledger.records import encode
from vcenter.store.port import Batch, Conflict, Overtaken, Put, Store, WriteFailed

log = structlog.get_logger()

QUEUE = 10_000  # commands waiting; beyond that callers are told to come back
GROUP = 1_000  # commands to one fsync
TRIES = 10  # to write before another replica does
CATCH_UP_S = 2.0
SLICE = 50  # commands that are decided in one go, about a millisecond


@value
class Done:
    """A command that was carried out: its reply, the revision that contains it, and whether it
    changed anything."""

    reply: Any
    revision: int
    changed: bool = True


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
    tries: int = 0


@dataclass(slots=True)
class _Decided:
    waiting: _Waiting
    decision: Decision
    puts: Sequence[Put]


class _Group:
    """Commands that become durable with one fsync, decided one on top of the other. `after`: the
    ledger's revision without them."""

    def __init__(self, base: View, after: int, clock: Clock) -> None:
        self.overlay = Overlay(base)
        self.after = after
        self.now_ms = 0  # when the first of them was taken
        self._clock = clock
        self.taken: list[_Waiting] = []
        self.decided: list[_Decided] = []

    def take(self, waiting: _Waiting) -> None:
        if not self.taken:
            self.now_ms = self._clock.now_ms()
        self.taken.append(waiting)
        if waiting.together.future.done():
            return  # the caller gave up before anything happened
        try:
            decision = waiting.command.decide(self.overlay, self.now_ms)
            puts = [Put(c.key, encode(c.record)) for c in decision.changes]
        except Refusal as refusal:
            decision, puts = Decision(refusal=refusal), []
        except Exception as error:
            log.exception("command failed", command=repr(waiting.command)[:500])
            _resolve(waiting, error)
            return
        self.overlay.add(decision.changes)
        self.decided.append(_Decided(waiting, decision, puts))

    @property
    def last(self) -> int:
        """The ledger's revision with them, if nobody else writes."""
        return self.after + sum(1 for decided in self.decided if decided.puts)

    def batches(self, table: Table) -> list[Batch]:
        """Compare-and-set on every key; keys changed earlier in the group are ours already."""
        touched: set[str] = set()
        return [Batch(d.puts, _expected(table, d.puts, touched)) for d in self.decided if d.puts]


class Writer:
    """`submit` from anywhere; `run` is one task, owned by the composition."""

    def __init__(self, feed: Feed, store: Store, clock: Clock, limit: int = QUEUE) -> None:
        self._feed = feed
        self._store = store
        self._clock = clock
        self._limit = limit
        self._queue: deque[_Waiting] = deque()
        self._news = asyncio.Event()  # something is queued, or an append has ended
        self._idle = asyncio.Event()
        self._idle.set()
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
        if len(self._queue) + len(commands) > self._limit:
            text = f"{self._limit} commands are waiting"
            raise Refusal(Reason.OVERLOADED, text, retry_after=0.5)
        together = _Together(len(commands))
        self._queue.extend(_Waiting(command, together, n) for n, command in enumerate(commands))
        self._idle.clear()
        self._news.set()
        return await together.future

    async def run(self) -> None:
        """Until cancelled. Call `drain` first for a clean end."""
        table = self._feed.table
        group = ahead = self._again(())
        try:
            while True:
                if not group.taken:
                    await self._something()
                    group = self._again(())
                    await self._fill(group, None)
                if group.after != table.revision:
                    group = self._again(group.taken)  # another replica has written
                ahead = _Group(group.overlay, group.last, self._clock)
                lost = await self._make_durable(group, ahead)
                if lost is not None:
                    ahead = self._again((*lost, *ahead.taken))
                ahead.overlay.rest_on(table)
                group = ahead
                if not group.taken and not self._queue:
                    self._idle.set()
        finally:
            for waiting in (*group.taken, *ahead.taken, *self._queue):
                waiting.together.future.cancel()  # who has no answer by now must read back
            self._idle.set()  # nothing will be done any more: nobody waits for it

    async def drain(self) -> None:
        """Refuse new commands; return when those that were accepted are durable."""
        self._closing = True
        await self._idle.wait()

    def _again(self, waiting: Sequence[_Waiting]) -> _Group:
        """Decided on the table, where what it was decided on did not come to be."""
        fresh = _Group(self._feed.table, self._feed.table.revision, self._clock)
        for one in waiting:
            fresh.take(one)
        return fresh

    async def _something(self) -> None:
        """Returns when there is something to do."""
        while not self._queue:
            self._news.clear()
            await self._news.wait()

    async def _fill(self, group: _Group, until: asyncio.Task[Any] | None) -> None:
        """Decides what comes in, while the append is under way; without one, what is there."""
        while len(group.taken) < GROUP and not (until is not None and until.done()):
            if not self._queue:
                if until is None:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            for _ in range(min(SLICE, len(self._queue), GROUP - len(group.taken))):
                group.take(self._queue.popleft())
            await asyncio.sleep(0)  # lookups get their turn, and so does the end of the append

    async def _make_durable(self, group: _Group, ahead: _Group) -> Sequence[_Waiting] | None:
        """None: all of it came to be. Otherwise what is to be decided again, before `ahead`, which
        is decided meanwhile."""
        batches = group.batches(self._feed.table)
        results: list[int | Conflict] = []
        if batches:
            append = asyncio.create_task(self._store.append(batches, group.now_ms, group.after))
            append.add_done_callback(lambda _: self._news.set())
            try:
                await self._fill(ahead, append)
                results = await append
            except WriteFailed as error:
                log.error("write failed", error=str(error), commands=len(batches))
                _refuse(group.taken, f"the store failed: {error}", 1.0)
                return ()
            finally:
                append.cancel()
        lost = self._publish(group, results)
        if overtaken := [r.revision for r in results if isinstance(r, Overtaken)]:
            await self._feed.reached(overtaken[-1], CATCH_UP_S)
        return lost

    def _publish(
        self, group: _Group, results: Sequence[int | Conflict]
    ) -> Sequence[_Waiting] | None:
        revisions, kept = iter(results), True
        for place, decided in enumerate(group.decided):
            result = next(revisions) if decided.puts else self._feed.table.revision
            if isinstance(result, Overtaken):
                return _not_too_often(d.waiting for d in group.decided[place:])
            if isinstance(result, Conflict):
                kept = False
                refusal = Refusal(Reason.STORE_FAILED, str(result), retry_after=0.1)
                _resolve(decided.waiting, refusal)
                continue
            if decided.puts:
                self._feed.publish(result, decided.decision.changes)
            _reply(decided, result)
        return None if kept else ()


def _expected(table: Table, puts: Sequence[Put], touched: set[str]) -> dict[str, int]:
    fresh = [put.key for put in puts if put.key not in touched]
    touched.update(fresh)
    return {key: table.revision_of(key) for key in fresh}


def _reply(decided: _Decided, revision: int) -> None:
    refusal = decided.decision.refusal
    done = Done(decided.decision.reply, revision, bool(decided.decision.changes))
    _resolve(decided.waiting, done if refusal is None else refusal)


def _not_too_often(overtaken: Iterable[_Waiting]) -> Sequence[_Waiting]:
    left = []
    for waiting in overtaken:
        waiting.tries += 1
        if waiting.tries < TRIES:
            left.append(waiting)
        else:
            _refuse((waiting,), "other replicas were always faster", 0.2)
    return left


def _refuse(waiting: Iterable[_Waiting], text: str, retry_after: float) -> None:
    for one in waiting:
        _resolve(one, Refusal(Reason.STORE_FAILED, text, retry_after=retry_after))


def _resolve(waiting: _Waiting, result: Done | Exception) -> None:
    waiting.together.answer(waiting.place, result)
