"""The writer: nothing is visible or acknowledged before it is durable (I2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from common.clock import Clock, SystemClock
from common.errors import Reason, Refusal
from common.model.server import Severity, Tenant
from tests.support.held import HeldStore
from vcenter.core import indexes, keys
from vcenter.core.command import Alarm, Decision
from vcenter.core.inventory import DeleteTenant, PutTenant
from vcenter.core.table import Change
from vcenter.core.view import View
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.writer import BUNDLE, BUSY, GATHERING, GROUP, QUEUE, Done
from vcenter.store.memory import MemoryStore
from vcenter.store.port import Batch, Put


@asynccontextmanager
async def writing(
    store: MemoryStore, queue: int = QUEUE, clock: Clock | None = None
) -> AsyncIterator[Ledger]:
    ledger = Ledger(store, clock or SystemClock(), queue)
    await ledger.open()
    running = asyncio.create_task(ledger.writer.run())
    try:
        yield ledger
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def submitted(ledger: Ledger, *names: str) -> list[asyncio.Task[object]]:
    """Commands that the writer has not finished with."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(ledger.submit(PutTenant(name))) for name in names
    ]
    await asyncio.sleep(0)
    return tasks


async def test_nothing_is_visible_or_answered_before_it_is_durable() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        heard: list[int] = []
        ledger.feed.listen(lambda committed: heard.append(committed.revision))
        (task,) = await submitted(ledger, "blue")
        await store.waiting.wait()
        assert not task.done() and not heard
        assert ledger.table.tenant("blue") is None and ledger.table.revision == 0
        store.released.set()
        assert (await task).revision == 1  # type: ignore[attr-defined]
        assert heard == [1]
        assert ledger.table.tenant("blue") == Tenant("blue", revision=1)


async def test_what_waits_while_one_group_is_written_goes_together() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        first = await submitted(ledger, "a")
        await store.waiting.wait()
        rest = await submitted(ledger, "b", "c", "d")
        store.released.set()
        await asyncio.gather(*first)
        assert [done.revision for done in await asyncio.gather(*rest)] == [2, 2, 2]  # type: ignore[attr-defined]
        assert store.groups == [1, 1]


async def test_commands_of_one_group_see_those_before_them() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        await submitted(ledger, "first")
        await store.waiting.wait()
        same = await submitted(ledger, "blue", "blue")
        gone = asyncio.create_task(ledger.submit(DeleteTenant("blue")))
        again = asyncio.create_task(ledger.submit(DeleteTenant("blue")))
        await asyncio.sleep(0)
        store.released.set()
        await asyncio.gather(*same, gone)
        with pytest.raises(Refusal) as caught:
            await again
        assert caught.value.reason is Reason.UNKNOWN_TENANT
        assert ledger.table.tenant("blue") is None
        assert ledger.table.revision == 3, "said twice, written once, and deleted"


async def test_replies_come_in_the_order_of_their_revisions() -> None:
    async with writing(MemoryStore()) as ledger:
        answered: list[int] = []
        tasks = await submitted(ledger, *(f"t{n}" for n in range(3 * BUNDLE)))
        for task in tasks:
            task.add_done_callback(lambda done: answered.append(done.result().revision))  # type: ignore[attr-defined]
        await asyncio.gather(*tasks)
        found = [ledger.table.tenant(f"t{n}") for n in range(3 * BUNDLE)]
        assert [tenant.revision for tenant in found if tenant] == answered
        assert answered == [1] * BUNDLE + [2] * BUNDLE + [3] * BUNDLE


class Busy(SystemClock):
    """So many more callers come whenever somebody sleeps."""

    def __init__(self, *coming: int) -> None:
        self._coming = list(coming)
        self.slept = 0
        self.ledger: Ledger
        self.tasks: list[asyncio.Task[object]] = []

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        more = self._coming.pop(0) if self._coming else 0
        names = (f"t{self.slept}-{n}" for n in range(more))
        self.tasks += await submitted(self.ledger, *names)


@pytest.mark.parametrize(
    ("first", "coming", "together", "slept"),
    [
        (BUSY - 1, (5,), BUSY - 1, 0),
        (BUSY, (), BUSY, 1),
        (BUSY, (3, 2), BUSY + 5, 3),
        (BUSY, (3, BUNDLE, 7), BUSY + 3 + BUNDLE, 2),
        (BUSY, (1,) * 99, BUSY + GATHERING, GATHERING),
    ],
)
async def test_under_load_a_group_waits_while_callers_keep_coming(
    first: int, coming: tuple[int, ...], together: int, slept: int
) -> None:
    clock, store = Busy(*coming), HeldStore()
    async with writing(store, clock=clock) as ledger:
        clock.ledger = ledger
        tasks = await submitted(ledger, *(f"t{n}" for n in range(first)))
        await store.waiting.wait()
        assert clock.slept == slept
        store.released.set()
        await asyncio.gather(*tasks, *clock.tasks)
        assert sum([len(entry.puts) async for entry in store.read(0)]) == together


async def test_callers_that_write_the_same_do_not_share_a_revision() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        await submitted(ledger, "first")
        await store.waiting.wait()
        commands = PutTenant("a"), PutTenant("b"), DeleteTenant("a"), PutTenant("c")
        tasks = [asyncio.create_task(ledger.submit(command)) for command in commands]
        await asyncio.sleep(0)
        store.released.set()
        assert [done.revision for done in await asyncio.gather(*tasks)] == [2, 2, 3, 3]
        assert [len(entry.puts) async for entry in store.read(1)] == [2, 2]


async def test_a_failed_write_refuses_all_of_its_group_and_nothing_is_visible() -> None:
    store = HeldStore()
    store.failing = True
    store.released.set()
    async with writing(store) as ledger:
        tasks = await submitted(ledger, "a", "b")
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, Refusal)
            assert result.reason is Reason.STORE_FAILED and result.retry_after
        assert ledger.table.revision == 0 and ledger.table.tenant("a") is None
        store.failing = False
        assert (await ledger.submit(PutTenant("a"))).revision == 1


async def test_somebody_elses_write_is_a_conflict_and_not_overwritten() -> None:
    store = MemoryStore()
    async with writing(store) as ledger:
        await store.append([Batch((Put(keys.tenant("b"), b""),), {})], 0)
        with pytest.raises(Refusal) as caught:
            await ledger.submit(PutTenant("b"))
        assert caught.value.reason is Reason.STORE_FAILED
        assert ledger.table.tenant("b") is None


async def test_a_full_queue_tells_the_caller_to_come_back() -> None:
    store = HeldStore()
    async with writing(store, queue=2) as ledger:
        taken = await submitted(ledger, "a")
        await store.waiting.wait()
        waiting = await submitted(ledger, "b", "c")
        with pytest.raises(Refusal) as caught:
            await ledger.submit(PutTenant("d"))
        assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after
        store.released.set()
        await asyncio.gather(*taken, *waiting)
        assert ledger.table.tenant("d") is None


async def test_draining_makes_what_was_accepted_durable_and_takes_no_more() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        tasks = await submitted(ledger, "a", "b")
        draining = asyncio.create_task(ledger.writer.drain())
        await store.waiting.wait()
        with pytest.raises(Refusal) as caught:
            await ledger.submit(PutTenant("late"))
        assert caught.value.reason is Reason.SHUTTING_DOWN
        store.released.set()
        await draining
        assert all(task.done() for task in tasks) and ledger.table.count(indexes.TENANTS) == 2


async def test_a_caller_that_gives_up_while_waiting_is_not_carried_out() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        first = await submitted(ledger, "a")
        await store.waiting.wait()
        (given_up,) = await submitted(ledger, "b")
        given_up.cancel()
        await asyncio.sleep(0)
        store.released.set()
        await asyncio.gather(*first)
        await ledger.writer.drain()
        assert ledger.table.tenant("b") is None


@dataclass(frozen=True)
class Broken:
    """A command with a defect, or one whose record cannot be stored."""

    records: tuple[object, ...] = ()

    def decide(self, view: View, now_ms: int) -> Decision:
        if not self.records:
            raise ZeroDivisionError
        return Decision(tuple(Change("tenant/x", r) for r in self.records))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "error"), [(Broken(), ZeroDivisionError), (Broken((7,)), KeyError)]
)
async def test_a_defect_fails_its_own_caller_alone(command: Broken, error: type[Exception]) -> None:
    async with writing(MemoryStore()) as ledger:
        before, broken, after = (
            asyncio.create_task(ledger.submit(c)) for c in (PutTenant("a"), command, PutTenant("b"))
        )
        with pytest.raises(error):
            await broken
        await asyncio.gather(before, after)
        assert ledger.table.tenant("a") and ledger.table.tenant("b")


@dataclass(frozen=True)
class Alarming:
    def decide(self, view: View, now_ms: int) -> Decision:
        alarm = Alarm(Reason.CLAIM_HELD, "held", Severity.CRITICAL, evidence={"by": "x"})
        return alarm.decision(view, now_ms)


async def test_a_refusal_comes_after_its_alert_is_durable_and_raises_it_once() -> None:
    store = HeldStore()
    async with writing(store) as ledger:
        alarming = asyncio.create_task(ledger.submit(Alarming()))
        await store.waiting.wait()
        assert not alarming.done()
        store.released.set()
        for task in (alarming, asyncio.create_task(ledger.submit(Alarming()))):
            with pytest.raises(Refusal):
                await task
        assert ledger.table.revision == 1


async def test_a_restart_finds_everything_that_was_acknowledged() -> None:
    store = MemoryStore()
    async with writing(store) as ledger:
        await asyncio.gather(*await submitted(ledger, "a", "b"))
    async with writing(store) as ledger:
        assert ledger.table.revision == 1
        assert ledger.table.tenant("b") == Tenant("b", revision=1)


@dataclass(frozen=True)
class Looking:
    """Notes what it saw, each time that it is decided."""

    seen: list[bool]

    def decide(self, view: View, now_ms: int) -> Decision:
        self.seen.append(view.tenant("blue") is not None)
        return Decision(reply=self.seen[-1])


@pytest.mark.parametrize("failing", [False, True])
async def test_the_next_group_is_decided_while_the_last_is_written(failing: bool) -> None:
    """And decided again, where that was not to be."""
    store, seen = HeldStore(), list[bool]()
    async with writing(store) as ledger:
        (first,) = await submitted(ledger, "blue")
        await store.waiting.wait()
        commands = [Looking(seen)] * BUNDLE
        looking = asyncio.create_task(ledger.submit_all(commands))
        for _ in range(10):
            await asyncio.sleep(0)
        assert seen == [True] * BUNDLE and not looking.done(), "decided, and told to nobody"
        store.failing = failing
        store.released.set()
        answers = await looking
        assert [a.reply for a in answers if isinstance(a, Done)] == [not failing] * BUNDLE
        assert seen == [True] * BUNDLE + [False] * (BUNDLE * failing)
        assert (
            isinstance((await asyncio.gather(first, return_exceptions=True))[0], Refusal) is failing
        )


async def test_a_group_may_be_split_and_its_caller_still_hears_of_all() -> None:
    async with writing(MemoryStore(), queue=5 * GROUP) as ledger:
        commands = [PutTenant(f"t{n}") for n in range(2 * GROUP + 3)]
        several = [ledger.submit_all(commands[:7]), ledger.submit_all(commands[7:])]
        for answers in await asyncio.gather(*several):
            assert all(isinstance(answer, Done) for answer in answers)
        assert ledger.table.count(indexes.TENANTS) == len(commands)


@dataclass(frozen=True)
class Defective:
    def decide(self, view: View, now_ms: int) -> Decision:
        raise ZeroDivisionError


async def test_what_comes_together_shares_a_revision_and_each_has_its_own_answer() -> None:
    store = MemoryStore()
    async with writing(store) as ledger:
        unknown, defective = DeleteTenant("nobody"), Defective()
        answers = await ledger.submit_all([PutTenant("a"), unknown, defective, PutTenant("b")])
        assert [type(a) for a in answers] == [Done, Refusal, ZeroDivisionError, Done]
        assert {a.revision for a in answers if isinstance(a, Done)} == {1}
        assert [[put.key for put in e.puts] async for e in store.read(0)] == [
            [keys.tenant("a"), keys.tenant("b")]
        ]


async def test_of_a_key_that_is_changed_twice_together_the_last_value_stays() -> None:
    store = MemoryStore()
    async with writing(store) as ledger:
        answers = await ledger.submit_all([PutTenant("a"), DeleteTenant("a"), PutTenant("b")])
        assert all(isinstance(answer, Done) for answer in answers)
        assert ledger.table.tenant("a") is None and ledger.table.tenant("b") is not None
        assert [record.key async for page in store.snapshot() for record in page] == [
            keys.tenant("b")
        ]
