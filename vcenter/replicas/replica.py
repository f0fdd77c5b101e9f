"""One vCenter of several over the same ledger: it hears what the others write, and knows how fresh
its own table is."""

from __future__ import annotations

import asyncio

import structlog

from common.clock import Clock
from common.model.operation import HostedState, MoveOutcome
from vcenter.ledger.ledger import Ledger
from vcenter.ledger.records import changes_of
from vcenter.replicas.passing import Listener, Passing
from vcenter.replicas.questions import Ask, Questions
from vcenter.store.etcd import EtcdStore
from vcenter.store.etcd.client import Refused, Unreachable
from vcenter.store.port import Compacted, StoreUnusable

log = structlog.get_logger()

BEAT_S = 0.5
BEHIND_S = 2.0  # without progress, though there is more: the watch is tried at another member
SET_BACK = 6  # beats in a row with less than we know; once may be a stale answer of etcd's
STALE_S = 4.0  # longer than an election takes, so that nobody hears of one


class Replica:
    """Implements `Companions`."""

    def __init__(self, ledger: Ledger, store: EtcdStore, clock: Clock) -> None:
        self.me = store.name
        self.others: frozenset[str] = frozenset()
        self._oldest = False
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._passing = Passing(store, ledger.feed, lambda: self.others)
        self._questions = Questions(store, self._passing.came)

    def answer_with(self, ask: Ask) -> None:
        """Who puts the questions of other replicas to our agents."""
        self._questions.answer_with(ask)

    def listen(self, listener: Listener) -> None:
        """Who is told what the hosts of other replicas say of other domains' moves."""
        self._passing.listen(listener)

    def pass_on(self, server_id: str, outcome: MoveOutcome) -> None:
        self._passing.pass_on(server_id, outcome)

    def is_mine(self, holder: str) -> bool:
        return holder == self.me or (self._oldest and holder not in self.others)

    async def ask(self, holder: str, server_id: str, vm_id: str, within: float) -> HostedState:
        return await self._questions.ask(holder, server_id, vm_id, within)

    async def begin(self) -> None:
        self._store.presence.reborn = self._reborn
        await self._head()

    def _reborn(self) -> None:
        """The others took us for dead, and our agents for theirs to wait for."""
        self._ledger.freshness.became(self._clock.now_ms())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._beat())
            tasks.create_task(self._questions.run())
            tasks.create_task(self._passing.run())

    async def _follow(self) -> None:
        """Everything that is committed, our own included; what we know already is not said
        twice."""
        feed = self._ledger.feed
        try:
            async for entry in self._store.follow(feed.table.revision):
                if entry.revision > feed.table.revision:
                    feed.publish(entry.revision, changes_of(entry))
        except Compacted as error:
            text = (
                f"this replica was away for longer than history is kept ({error}); start it again"
            )
            raise StoreUnusable(text) from error

    async def _beat(self) -> None:
        """Ask for the end of the history, which takes a majority of etcd; then see that the table
        has it."""
        table, clock, freshness = self._ledger.table, self._clock, self._ledger.freshness
        whole, whole_ms, less = clock.monotonic(), clock.now_ms(), 0
        while True:
            asked, asked_ms, known = clock.monotonic(), clock.now_ms(), table.revision
            head = await self._head()
            less = less + 1 if head is not None and head < known else 0
            if less == SET_BACK:
                text = "etcd was set back to a backup while this replica ran; start it again"
                raise StoreUnusable(text)
            if head is not None and not less and await self._reached(head):
                whole, whole_ms = asked, asked_ms
                freshness.became(None)
            elif clock.monotonic() - whole > STALE_S and freshness.stale_since_ms is None:
                log.warning("cut off: reads are stale, writes refused", since_ms=whole_ms)
                freshness.became(whole_ms)
            await clock.sleep(BEAT_S)

    async def _head(self) -> int | None:
        try:
            head, alive = await self._store.look()
            self.others, self._oldest = frozenset(alive) - {self.me}, alive[:1] == [self.me]
            return head
        except (Unreachable, Refused) as error:
            log.warning("no word from etcd", error=str(error))
            return None

    async def _reached(self, revision: int) -> bool:
        if await self._ledger.feed.reached(revision, BEHIND_S):
            return True
        self._store.rewatch()
        return False
