"""Leases: who is believed to be there, at the edges of time and of a failing store (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from common.model.server import Liveness, Server
from tests.support.held import HandClock, HeldStore
from vcenter.ledger import Ledger
from vcenter.sessions import Sessions

LEASE_S = 10.0
HOST = Server("host-1")


class Leases:
    """Ledger and sessions on a store and a clock that the test holds."""

    def __init__(self) -> None:
        self.store = HeldStore(held=False)
        self.clock = HandClock()
        self.ledger = Ledger(self.store, self.clock)
        self.sessions = Sessions(self.ledger, self.clock, LEASE_S)

    @property
    def liveness(self) -> Liveness | None:
        server = self.ledger.table.server("host-1")
        return server.liveness if server else None


@asynccontextmanager
async def leases() -> AsyncIterator[Leases]:
    made = Leases()
    await made.ledger.open()
    tasks = [
        asyncio.create_task(made.ledger.writer.run()),
        asyncio.create_task(made.sessions.watch_leases()),
    ]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_lease_lapses_when_it_is_over_and_not_before() -> None:
    async with leases() as at:
        session = await at.sessions.attach(HOST)
        await at.clock.turn(LEASE_S * 0.9)
        assert at.liveness is Liveness.ATTACHED and not session.closed
        await at.clock.turn(LEASE_S * 0.2)
        assert at.liveness is Liveness.SILENT and session.closed


async def test_a_beat_renews_it() -> None:
    async with leases() as at:
        await at.sessions.attach(HOST)
        for _ in range(5):
            await at.clock.turn(LEASE_S * 0.9)
            at.sessions.renew("host-1")
        assert at.liveness is Liveness.ATTACHED


async def test_a_host_that_comes_back_in_the_last_moment_is_not_silenced() -> None:
    async with leases() as at:
        first = await at.sessions.attach(HOST)
        at.sessions.detach(first)
        await at.clock.turn(LEASE_S * 0.95)
        at.store.released.clear()
        at.store.waiting.clear()
        attaching = asyncio.create_task(at.sessions.attach(HOST))
        await at.store.waiting.wait()  # the hello is being written
        await at.clock.turn(LEASE_S * 0.2)  # the earlier lease would be over now
        at.store.released.set()
        session = await attaching
        await at.clock.turn(LEASE_S * 0.1)
        assert at.liveness is Liveness.ATTACHED and not session.closed


async def test_silence_that_could_not_be_written_down_is_written_later() -> None:
    async with leases() as at:
        await at.sessions.attach(HOST)
        at.store.failing = True
        await at.clock.turn(LEASE_S * 1.1)
        assert at.liveness is Liveness.ATTACHED
        at.store.failing = False
        await at.clock.turn(LEASE_S * 0.1)
        assert at.liveness is Liveness.SILENT


async def test_a_newer_session_outlives_the_end_of_the_older() -> None:
    async with leases() as at:
        older = await at.sessions.attach(HOST)
        newer = await at.sessions.attach(HOST)
        assert older.closed and not newer.closed
        at.sessions.detach(older)
        asking = asyncio.create_task(at.sessions.ask("host-1", "vm", 5.0))
        async for message in newer.outgoing():
            if hasattr(message, "ask_id"):
                break
        at.sessions.detach(newer)
        assert await asking == "unknown", "no answer is no no"
