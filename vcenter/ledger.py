"""The ledger as the rest of the vCenter sees it: read the table, submit commands, hear changes."""

from __future__ import annotations

from collections.abc import Sequence

from common.clock import Clock
from vcenter.core.command import Command
from vcenter.core.table import Table
from vcenter.feed import Feed
from vcenter.loading import Loader
from vcenter.past import Past
from vcenter.records import Unreadable
from vcenter.store.port import Store, StoreUnusable
from vcenter.writer import QUEUE, Done, Writer


class Ledger:
    """Table, feed, writer and store, wired the one way that data flows."""

    def __init__(self, store: Store, clock: Clock, queue: int = QUEUE) -> None:
        self.table = Table()
        self.feed = Feed(self.table)
        self.writer = Writer(self.feed, store, clock, queue)
        self.past = Past(store, self.table)
        self._store = store

    async def open(self) -> None:
        """Opens the store and fills the table. Raises `StoreUnusable`."""
        await self._store.open()
        revision = await self._store.revision()
        try:
            loader = Loader(self.table)
            async for record in self._store.snapshot():
                loader.add(record)
        except Unreadable as error:
            await self._store.close()
            text = f"{error}; restore a backup, or use the release that wrote it"
            raise StoreUnusable(text) from error
        self.table.apply(revision, [])

    async def submit(self, command: Command) -> Done:
        return await self.writer.submit(command)

    async def submit_all(self, commands: Sequence[Command]) -> list[Done | Exception]:
        return await self.writer.submit_all(commands)

    async def close(self) -> None:
        await self._store.close()
