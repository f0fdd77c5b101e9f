"""The ledger as the rest of the vCenter sees it: read the table, submit commands, hear changes."""

from __future__ import annotations

from collections.abc import Sequence

from common.clock import Clock
from vcenter.audit import Audit
from vcenter.core.command import Command
from vcenter.core.table import Table
from vcenter.core.view import FreezeLimits
from vcenter.journal import Journal, MemoryJournal
from vcenter.ledger.feed import RING, Feed
from vcenter.ledger.freshness import Freshness
from vcenter.ledger.loading import load
from vcenter.ledger.past import Past
from vcenter.ledger.records import Unreadable, changes_of
from vcenter.ledger.writer import QUEUE, Done, Writer
from vcenter.store.port import Store, StoreUnusable


class Ledger:
    """Table, feed, writer and store, wired the one way that data flows."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        queue: int = QUEUE,
        ring: int = RING,
        journal: Journal | None = None,
        limits: FreezeLimits | None = None,
    ) -> None:
        self.table = Table(limits)
        self.feed = Feed(self.table, ring)
        self.writer = Writer(self.feed, store, clock, queue)
        self.past = Past(store, self.table)
        self.freshness = Freshness()
        self.audit = Audit(journal or MemoryJournal(), clock)
        self._store = store

    async def open(self) -> None:
        """Opens the store and fills the table. Raises `StoreUnusable`."""
        await self._store.open()
        try:
            await self._fill()
        except Unreadable as error:
            await self._store.close()
            text = f"{error}; restore a backup, or use the release that wrote it"
            raise StoreUnusable(text) from error
        except StoreUnusable:
            await self._store.close()
            raise

    async def _fill(self) -> None:
        revision = await self._store.revision()
        await load(self.table, self._store.pieces())
        self.table.apply(revision, [])
        # Others may have written while we read: then it is read again, in order.
        async for was in self._store.read(revision):
            self.table.apply(was.revision, changes_of(was))

    async def submit(self, command: Command) -> Done:
        self.freshness.check()
        done = await self.writer.submit(command)
        if done.changed:
            self.audit.done(command, done.revision)
        return done

    async def submit_all(self, commands: Sequence[Command]) -> list[Done | Exception]:
        self.freshness.check()
        results = await self.writer.submit_all(commands)
        self.audit.all_done(commands, results)
        return results

    async def close(self) -> None:
        await self._store.close()
