"""The one writer: commands in, durable changes out, in order, many to an fsync.

Nobody else changes state. A command is decided against everything decided before it, replied to
when it is durable, and visible to nobody earlier (I2). Commands that come together share batches,
and so revisions, whoever they come from: of thousands, what is done once a batch costs next to
nothing. While the store makes one group durable the next is decided on top of it, a batch at a
time; if that one fails, what was decided on top of it is decided again. So is what another replica
was faster than, once it is in the table.
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
from vcenter.core.table import Change, Table
from vcenter.core.view import View
from vcenter.ledger.feed import Feed
from vcenter.ledger.records import encoded
from vcenter.store.port import Batch, Conflict, Overtaken, Put, Store, WriteFailed

log = structlog.get_logger()

QUEUE = 10_000  # commands waiting; beyond that callers are told to come back
GROUP = 1_000  # commands to one fsync
BUNDLE = 50  # commands to a batch: decided in one go, about a millisecond
BUSY = 8  # callers who wait: then more are on their way
GATHER_S, GATHERING = 0.002, 5  # how long they are waited for, and how often at most
TRIES = 10  # to write before another replica does
CATCH_UP_S = 2.0


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

    def answer(self, place: int, results: Sequence[Done | Exception]) -> None:
        """From this place on; each once."""
        self._answers[place : place + len(results)] = results
        self._left -= len(results)
        if not self._left and not self.future.done():
            self.future.set_result([a for a in self._answers if a is not None])


@dataclass(slots=True)
class _Waiting:
    """A bundle: commands of one caller that become part of one batch."""

    commands: Sequence[Command]
    together: _Together
    place: int  # of the first among all that were submitted together
    tries: int = 0


@dataclass(slots=True)
class _Decided:
    """What becomes one batch: each bundle in it with what became of its commands, and what came of
    all of them, by key."""

    bundles: list[tuple[_Waiting, list[Decision | Exception]]]
    puts: dict[str, Put]

    def changes(self) -> list[Change]:
        return [
            change
            for _, outcomes in self.bundles
            for outcome in outcomes
            if isinstance(outcome, Decision)
            for change in outcome.changes
        ]

    def joined(self, other: _Decided) -> bool:
        """Took in what was decided after it, unless it is full, or both write the same key."""
        full = len(self.puts) + len(other.puts) > BUNDLE
        if full or not self.puts.keys().isdisjoint(other.puts):
            return False
        self.bundles += other.bundles
        self.puts.update(other.puts)
        return True


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
        self.size = 0  # commands

    def take(self, waiting: _Waiting) -> None:
        if not self.taken:
            self.now_ms = self._clock.now_ms()
        self.taken.append(waiting)
        self.size += len(waiting.commands)
        if waiting.together.future.done():
            return  # the caller gave up before anything happened
        puts: dict[str, Put] = {}
        outcomes = [self._decide(command, puts) for command in waiting.commands]
        decided = _Decided([(waiting, outcomes)], puts)
        if not (self.decided and self.decided[-1].joined(decided)):
            self.decided.append(decided)

    def _decide(self, command: Command, puts: dict[str, Put]) -> Decision | Exception:
        try:
            decision = command.decide(self.overlay, self.now_ms)
            new = [Put(c.key, encoded(c)) for c in decision.changes]
        except Refusal as refusal:
            return Decision(refusal=refusal)
        except Exception as error:
            log.exception("command failed", command=repr(command)[:500])
            return error
        self.overlay.add(decision.changes)
        for put in new:
            puts[put.key] = put  # of a key that is changed twice the last value is kept
        return decision

    @property
    def last(self) -> int:
        """The ledger's revision with them, if nobody else writes."""
        return self.after + sum(1 for decided in self.decided if decided.puts)

    def batches(self, table: Table) -> list[Batch]:
        """Compare-and-set on every key; keys changed earlier in the group are ours already."""
        touched: set[str] = set()
        batches = []
        for decided in self.decided:
            if decided.puts:
                fresh = [key for key in decided.puts if key not in touched]
                touched.update(fresh)
                expected = {key: table.revision_of(key) for key in fresh}
                batches.append(Batch([*decided.puts.values()], expected))
        return batches


class Writer:
    """`submit` from anywhere; `run` is one task, owned by the composition."""

    def __init__(self, feed: Feed, store: Store, clock: Clock, limit: int = QUEUE) -> None:
        self._feed = feed
        self._store = store
        self._clock = clock
        self._limit = limit
        self._queue: deque[_Waiting] = deque()
        self._queued = 0  # commands in it
        self._enough = 1  # of them to be worth waking up for
        self._news = asyncio.Event()  # enough is queued, or an append has ended
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
        """Each is carried out or not by itself; one wait for all of them, and a revision for some
        of them, which is what makes thousands cheap."""
        if not commands:
            return []
        if self._closing:
            raise Refusal(Reason.SHUTTING_DOWN, "the vCenter is stopping", retry_after=1.0)
        if self._queued + len(commands) > self._limit:
            text = f"{self._limit} commands are waiting"
            raise Refusal(Reason.OVERLOADED, text, retry_after=0.5)
        together = _Together(len(commands))
        self._queued += len(commands)
        for place in range(0, len(commands), BUNDLE):
            bundle = commands[place : place + BUNDLE]
            self._queue.append(_Waiting(bundle, together, place))
        self._idle.clear()
        if self._queued >= self._enough:
            self._news.set()
        return await together.future

    async def run(self) -> None:
        """Until cancelled. Call `drain` first for a clean end."""
        table = self._feed.table
        group = ahead = self._again(())
        try:
            while True:
                if not group.taken:
                    await self._come(1)
                    await self._gather()
                    group = self._again(())
                while self._queue and group.size < GROUP:
                    await self._take(group)
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

    async def _gather(self) -> None:
        """Under load, lets a batch fill up as long as commands keep coming: writing a group of a
        dozen costs more than deciding it."""
        for _ in range(GATHERING):
            before = self._queued
            if len(self._queue) < BUSY or before >= BUNDLE:
                return
            await self._clock.sleep(GATHER_S)
            if self._queued == before:
                return

    async def _come(self, count: int, append: asyncio.Task[Any] | None = None) -> None:
        """Returns when so many commands wait, or the append has ended."""
        self._enough = count
        while self._queued < count and not (append is not None and append.done()):
            self._news.clear()
            await self._news.wait()

    async def _fill(self, group: _Group, append: asyncio.Task[Any]) -> None:
        """Decides what comes in while the append is under way, a batch at a time."""
        while group.size < GROUP:
            await self._come(BUNDLE, append)
            if append.done():
                return
            await self._take(group)

    async def _take(self, group: _Group) -> None:
        """Decides a batch of what waits."""
        enough = min(group.size + BUNDLE, GROUP)
        while self._queue and group.size < enough:
            waiting = self._queue.popleft()
            self._queued -= len(waiting.commands)
            group.take(waiting)
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
                return _not_too_often(w for d in group.decided[place:] for w, _ in d.bundles)
            if isinstance(result, Conflict):
                kept = False
                _refuse([waiting for waiting, _ in decided.bundles], str(result), 0.1)
                continue
            if decided.puts:
                self._feed.publish(result, decided.changes())
            _reply(decided, result)
        return None if kept else ()


def _reply(decided: _Decided, revision: int) -> None:
    for waiting, outcomes in decided.bundles:
        answers = [_answer(outcome, revision) for outcome in outcomes]
        waiting.together.answer(waiting.place, answers)


def _answer(outcome: Decision | Exception, revision: int) -> Done | Exception:
    if isinstance(outcome, Exception):
        return outcome
    if outcome.refusal is not None:
        return outcome.refusal
    return Done(outcome.reply, revision, bool(outcome.changes))


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
        refusal = Refusal(Reason.STORE_FAILED, text, retry_after=retry_after)
        one.together.answer(one.place, [refusal] * len(one.commands))
