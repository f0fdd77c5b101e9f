"""Attached agents: what each should hear next, the questions put to them, and their leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias
from uuid import uuid4

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import HostedState, MoveStep, Operation
from common.model.server import Liveness, Server
from common.model.wanted import WantedNetwork, WantedVm
from vcenter.core import indexes
from vcenter.core.servers import AttachServer, LapseServer, Restarted
from vcenter.core.table import Table
from vcenter.core.wanted import Item, Roster, affected, as_seen_from, items_of, roster, wanted_vm
from vcenter.feed import Committed
from vcenter.ledger import Ledger

log = structlog.get_logger()

LEASE_S = 10.0


@dataclass(frozen=True, slots=True)
class Gone:
    """This host has nothing to do with the item any more."""

    item: Item


@dataclass(frozen=True, slots=True)
class Ask:
    ask_id: str
    vm_id: str


@dataclass(frozen=True, slots=True)
class Synced:
    revision: int


Down: TypeAlias = WantedVm | WantedNetwork | Gone | Ask | Synced


class Rosters:
    """What hosts of a VNI share, kept while the table stays as it is: one change of a network is
    told to all of its hosts."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kept: dict[int, Roster] = {}
        self._revision = -1

    def of(self, vni: int) -> Roster:
        if self._revision != self._table.revision:
            self._kept.clear()
            self._revision = self._table.revision
        kept = self._kept.get(vni)
        if kept is None:
            kept = self._kept[vni] = roster(self._table, vni)
        return kept


class Session:
    """One agent's stream: a set of items to look at again, and what was said of each last.

    The set is bounded by what the host has; a slow agent hears the latest state, not every step.
    """

    def __init__(self, server_id: str, ledger: Ledger, rosters: Rosters) -> None:
        self.server_id = server_id
        self._ledger = ledger
        self._rosters = rosters
        self._dirty: set[Item] = items_of(ledger.table, server_id)
        self._said: dict[Item, WantedVm | WantedNetwork] = {}
        self._asks: dict[str, tuple[Ask, asyncio.Future[HostedState]]] = {}
        self._unsent_asks: list[Ask] = []
        self._wake = asyncio.Event()
        self._wake.set()
        self.closed = False

    def mark(self, item: Item) -> None:
        self._dirty.add(item)
        self._wake.set()

    def close(self) -> None:
        """The stream ends; questions that are open stay unanswered: unknown, not no."""
        self.closed = True
        self._wake.set()
        for _, future in self._asks.values():
            if not future.done():
                future.set_result(HostedState.UNKNOWN)

    async def outgoing(self) -> AsyncIterator[Down]:
        """What to send, for as long as the session lives."""
        synced = False
        while not self.closed:
            self._wake.clear()
            while self._unsent_asks:
                yield self._unsent_asks.pop(0)
            if self._dirty or not synced:
                for message in self._news():
                    yield message
                yield Synced(self._ledger.table.revision)
                synced = True
            await self._wake.wait()

    def _news(self) -> list[Down]:
        """What differs from what was said. The switch first: its packets are waiting."""
        dirty, self._dirty = self._dirty, set()
        news = [message for item in dirty if (message := self._news_of(item)) is not None]
        return sorted(news, key=_urgency)

    def _news_of(self, item: Item) -> Down | None:
        table = self._ledger.table
        wanted: WantedVm | WantedNetwork | None
        if isinstance(item, str):
            wanted = wanted_vm(table, self.server_id, item)
        else:
            wanted = as_seen_from(self._rosters.of(item), self.server_id)
        if wanted == self._said.get(item):
            return None
        if wanted is None:
            del self._said[item]
            return Gone(item)
        self._said[item] = wanted
        return wanted

    async def ask(self, vm_id: str, timeout: float) -> HostedState:
        """The hypervisor's word on a VM; UNKNOWN when it does not come in time."""
        ask = Ask(str(uuid4()), vm_id)
        future: asyncio.Future[HostedState] = asyncio.get_running_loop().create_future()
        self._asks[ask.ask_id] = (ask, future)
        self._unsent_asks.append(ask)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return HostedState.UNKNOWN
        finally:
            del self._asks[ask.ask_id]

    def answered(self, ask_id: str, vm_id: str, state: HostedState) -> None:
        ask, future = self._asks.get(ask_id, (None, None))
        if ask is not None and future is not None and ask.vm_id == vm_id and not future.done():
            future.set_result(state)


def _urgency(message: Down) -> int:
    """Starts, then forwarding, then the rest."""
    if isinstance(message, WantedVm):
        starts = message.move is not None and message.move.step is MoveStep.START
        return 0 if starts else 2
    return 1 if isinstance(message, WantedNetwork) else 3


class Sessions:
    """At most one session a vServer: a newer one takes over. A lease outlives its stream."""

    def __init__(self, ledger: Ledger, clock: Clock, lease: float = LEASE_S) -> None:
        self.lease = lease
        self._ledger = ledger
        self._clock = clock
        self._rosters = Rosters(ledger.table)
        self._live: dict[str, Session] = {}
        self._deadlines: dict[str, float] = {}
        ledger.feed.listen(self._route)

    async def attach(self, server: Server) -> Session:
        self.renew(server.server_id)  # the lease of the session before must not lapse meanwhile
        await self._ledger.submit(AttachServer(server))
        session = Session(server.server_id, self._ledger, self._rosters)
        previous = self._live.get(server.server_id)
        if previous is not None:
            previous.close()
        self._live[server.server_id] = session
        self.renew(server.server_id)
        log.info("attached", server=server.server_id)
        return session

    def detach(self, session: Session) -> None:
        session.close()
        if self._live.get(session.server_id) is session:
            del self._live[session.server_id]
            log.info("detached", server=session.server_id)

    def renew(self, server_id: str) -> None:
        self._deadlines[server_id] = self._clock.monotonic() + self.lease

    async def ask(self, server_id: str, vm_id: str, timeout: float) -> HostedState:
        session = self._live.get(server_id)
        return HostedState.UNKNOWN if session is None else await session.ask(vm_id, timeout)

    def close(self) -> None:
        for session in list(self._live.values()):
            session.close()

    async def recover(self) -> None:
        """After a start: nobody is attached yet; everybody has one lease to come back."""
        for server in self._ledger.table.all(Server, indexes.SERVERS):
            self.renew(server.server_id)
        await self._ledger.submit(Restarted())

    async def watch_leases(self) -> None:
        """One task: ends leases that ran out, and moves that wait for a silent destination."""
        while True:
            await self._clock.sleep(self.lease / 10)
            for server_id in self._lapsed():
                try:
                    await self._ledger.submit(LapseServer(server_id))
                except Refusal as refusal:
                    log.warning("lease not ended yet", server=server_id, reason=refusal.message)

    def _lapsed(self) -> set[str]:
        now = self._clock.monotonic()
        lapsed = {s for s, deadline in self._deadlines.items() if deadline <= now}
        for server_id in lapsed:
            log.warning("lease lapsed", server=server_id)
            del self._deadlines[server_id]
            if server_id in self._live:
                self.detach(self._live[server_id])
        return lapsed | {s for s in self._awaited() if s not in self._deadlines}

    def _awaited(self) -> Iterator[str]:
        """Of whom somebody still expects to hear: attached in the ledger, or a destination."""
        for server in self._ledger.table.all(Server, indexes.SERVERS):
            if server.liveness is Liveness.ATTACHED:
                yield server.server_id
        for move in self._ledger.table.all(Operation, indexes.ACTIVE):
            yield move.destination

    def _route(self, committed: Committed) -> None:
        if not self._live:
            return
        for change in committed.changes:
            for server_id, item in affected(self._ledger.table, change):
                session = self._live.get(server_id)
                if session is not None:
                    session.mark(item)
