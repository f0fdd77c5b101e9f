"""The vCenter, composed: store, ledger, sessions, wire. Everything is handed in here."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from common.clock import Clock, SystemClock
from common.lifecycle import Daemon
from vcenter.board import Board
from vcenter.config import Config
from vcenter.keeping import keep_history
from vcenter.ledger import Ledger
from vcenter.monitor import Monitor
from vcenter.sessions import Sessions
from vcenter.store.memory import MemoryStore
from vcenter.store.port import Store
from vcenter.store.sqlite import SqliteStore
from vcenter.wire.answers import Answers
from vcenter.wire.context import Parts
from vcenter.wire.server import WireServer

log = structlog.get_logger()


def make_store(config: Config) -> Store:
    path = config.database
    return MemoryStore() if path is None else SqliteStore(path)


class VCenter:
    """One vCenter. `running()` serves for as long as its block lasts."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        self.config = config
        self._store = store
        self._clock = clock
        self.ledger = Ledger(store, clock)
        self.sessions = Sessions(self.ledger, clock, config.lease_seconds)
        self.parts = Parts(
            domain=config.domain,
            ledger=self.ledger,
            sessions=self.sessions,
            monitor=Monitor(),
            board=Board(self.ledger.feed),
            answers=Answers(self.ledger.feed, config.domain),
            clock=clock,
            trusted=tuple(ipaddress.ip_network(n) for n in config.trusted_networks),
            bookmark_seconds=config.bookmark_seconds,
        )
        self.ports: list[int] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[VCenter]:
        """Raises `StoreUnusable` before anything is served. Leaving drains and closes."""
        await self.ledger.open()
        try:
            wire = WireServer(self.parts, self.config.listen)
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self.ledger.writer.run())
                await self.sessions.recover()
                leases = tasks.create_task(self.sessions.watch_leases())
                keeping = tasks.create_task(
                    keep_history(self._store, self._clock, self.config.history_hours)
                )
                self.ports = wire.ports
                await wire.start()
                log.info("serving", listen=self.config.listen, revision=self.ledger.table.revision)
                try:
                    yield self
                finally:
                    leases.cancel()
                    keeping.cancel()
                    await wire.stop(self.config.drain_seconds)
                    await self.ledger.writer.drain()
                    writer.cancel()
        finally:
            await self.ledger.close()


async def serve(config: Config, daemon: Daemon) -> None:
    """The daemon's main."""
    _calm_the_collector()
    async with VCenter(config, make_store(config), SystemClock()).running():
        gc.collect()
        gc.freeze()
        daemon.ready()
        await daemon.stopping.wait()


def _calm_the_collector() -> None:
    """Rarer collections: what a call leaves behind is freed by its reference count, and what was
    loaded at the start stays (it is frozen then, so that no collection walks through it)."""
    gc.set_threshold(50_000, 20, 50)
