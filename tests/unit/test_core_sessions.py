"""Leases: who is believed to be there, at the edges of time and of a failing store (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from common.errors import Refusal
from common.model.server import Liveness, Server
from common.model.wanted import Held
from tests.support.held import HandClock, HeldStore
from vcenter.agents.session import Session
from vcenter.agents.sessions import TOGETHER, Sessions
from vcenter.ledger.ledger import Ledger

LEASE_S = 10.0
HOST = Server("host-1")


class Leases:
    """Ledger and sessions on a store and a clock that the test holds."""

    def __init__(self, at_once: int) -> None:
        self.store = HeldStore(held=False)
        self.clock = HandClock()
        self.ledger = Ledger(self.store, self.clock)
        self.sessions = Sessions(self.ledger, self.clock, LEASE_S, at_once=at_once)

    @property
    def liveness(self) -> Liveness | None:
        server = self.ledger.table.server("host-1")
        return server.liveness if server else None


@asynccontextmanager
async def leases(at_once: int = 10) -> AsyncIterator[Leases]:
    made = Leases(at_once)
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
        session = await at.sessions.attach(HOST, Held())
        await at.clock.turn(LEASE_S * 0.9)
        assert at.liveness is Liveness.ATTACHED and not session.closed
        await at.clock.turn(LEASE_S * 0.2)
        assert at.liveness is Liveness.SILENT and session.closed


async def test_a_beat_renews_it() -> None:
    async with leases() as at:
        await at.sessions.attach(HOST, Held())
        for _ in range(5):
            await at.clock.turn(LEASE_S * 0.9)
            at.sessions.renew("host-1")
        assert at.liveness is Liveness.ATTACHED


async def test_a_host_that_comes_back_in_the_last_moment_is_not_silenced() -> None:
    async with leases() as at:
        first = await at.sessions.attach(HOST, Held())
        at.sessions.detach(first)
        await at.clock.turn(LEASE_S * 0.95)
        at.store.released.clear()
        at.store.waiting.clear()
        attaching = asyncio.create_task(at.sessions.attach(HOST, Held()))
        await at.store.waiting.wait()  # the hello is being written
        await at.clock.turn(LEASE_S * 0.2)  # the earlier lease would be over now
        at.store.released.set()
        session = await attaching
        await at.clock.turn(LEASE_S * 0.1)
        assert at.liveness is Liveness.ATTACHED and not session.closed


async def test_silence_that_could_not_be_written_down_is_written_later() -> None:
    async with leases() as at:
        await at.sessions.attach(HOST, Held())
        at.store.failing = True
        await at.clock.turn(LEASE_S * 1.1)
        assert at.liveness is Liveness.ATTACHED
        at.store.failing = False
        await at.clock.turn(LEASE_S * 0.1)
        assert at.liveness is Liveness.SILENT


async def test_a_host_that_comes_back_while_many_are_silenced_is_not() -> None:
    hosts = [Server(f"host-{number:04}") for number in range(TOGETHER + 1)]
    async with leases(at_once=len(hosts)) as at:
        for host in hosts:
            await at.sessions.attach(host, Held())
        at.store.released.clear()
        at.store.waiting.clear()
        await at.clock.turn(LEASE_S * 1.1)
        await at.store.waiting.wait()  # the first of them are being written
        attaching = asyncio.create_task(at.sessions.attach(hosts[-1], Held()))
        await asyncio.sleep(0)
        at.store.released.set()
        await attaching
        await at.clock.turn(LEASE_S * 0.1)
        states = [at.ledger.table.must_server(host.server_id).liveness for host in hosts]
        assert states == [Liveness.SILENT] * TOGETHER + [Liveness.ATTACHED]


async def test_a_newer_session_outlives_the_end_of_the_older() -> None:
    async with leases() as at:
        older = await at.sessions.attach(HOST, Held())
        newer = await at.sessions.attach(HOST, Held())
        assert older.closed and not newer.closed
        at.sessions.detach(older)
        asking = asyncio.create_task(at.sessions.ask("host-1", "vm", 5.0))
        async for message in newer.outgoing():
            if hasattr(message, "ask_id"):
                break
        at.sessions.detach(newer)
        assert await asking == "unknown", "no answer is no no"


async def test_who_has_to_wait_for_its_turn_is_believed_to_be_there() -> None:
    async with leases(at_once=1) as at:
        session = await at.sessions.attach(HOST, Held())
        hearing = asyncio.create_task(_hear(session))
        await asyncio.sleep(0)
        at.sessions.detach(session)
        await hearing
        await at.sessions.attach(Server("host-2"), Held())  # and is being told everything
        await at.clock.turn(LEASE_S * 0.9)
        with pytest.raises(Refusal) as caught:
            await at.sessions.attach(HOST, Held())
        assert caught.value.retry_after is not None and caught.value.retry_after <= LEASE_S / 2
        await at.clock.turn(LEASE_S * 0.9)
        assert at.liveness is Liveness.ATTACHED
        await at.sessions.attach(HOST, Held())  # host-2 was silent, and its turn is over


async def _hear(session: Session) -> None:
    async for _ in session.outgoing():
        pass
