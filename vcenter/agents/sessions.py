"""Attached agents: whom a change concerns, and the leases that outlive streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.ids import NewId, random_id
from common.model.operation import HostedState, Operation
from common.model.place import is_abroad
from common.model.server import Liveness, Server
from common.model.silence import Listen
from common.model.wanted import Held
from vcenter.agents.admission import AT_ONCE, Admission, Turn
from vcenter.agents.networks import Networks
from vcenter.agents.session import Session
from vcenter.core import indexes
from vcenter.core.roster import Members
from vcenter.core.servers import AttachServer, LapseServer, Restarted
from vcenter.core.wanted import affected
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger
from vcenter.replicas.companions import Alone, Companions

log = structlog.get_logger()

LEASE_S = 10.0
TOGETHER = 500  # leases whose end is written at once


class Sessions:
    """At most one session a vServer: a newer one takes over. A lease outlives its stream."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        lease: float = LEASE_S,
        new_id: NewId = random_id,
        at_once: int = AT_ONCE,
        companions: Companions | None = None,
    ) -> None:
        self.lease = lease
        self._ledger = ledger
        self._clock = clock
        self._new_id = new_id
        self._companions = companions or Alone()
        self._networks = Networks(ledger.table, self._tell)
        self._admission = Admission(clock, lease / 2, at_once)
        self._live: dict[str, Session] = {}
        self._deadlines: dict[str, float] = {}
        self._given_up: set[str] = set()  # lapsed, but the ledger does not say so yet
        ledger.feed.listen(self._route)
        ledger.freshness.listen(self._became)

    async def attach(self, server: Server, held: Held) -> Session:
        """`held`: what the host has of an earlier session. Raises `Refusal`."""
        self.renew(server.server_id)  # whoever asks is there, whether it is let in now or not
        turn = self._admission.enter()
        try:
            await self._ledger.submit(AttachServer(server, self._companions.me))
            session = self._begin(server.server_id, held, turn)
        except BaseException:
            turn.end()
            raise
        log.info("attached", server=server.server_id)
        return session

    def _begin(self, server_id: str, held: Held, turn: Turn) -> Session:
        session = Session(server_id, self._ledger.table, self._networks, held, turn, self._new_id)
        previous = self._live.get(server_id)
        if previous is not None:
            previous.close()
        self._live[server_id] = session
        self.renew(server_id)
        return session

    def detach(self, session: Session) -> None:
        session.close()
        if self._live.get(session.server_id) is session:
            del self._live[session.server_id]
            log.info("detached", server=session.server_id)

    def renew(self, server_id: str) -> None:
        self._deadlines[server_id] = self._clock.monotonic() + self.lease
        self._given_up.discard(server_id)

    def span(self, vni: int, members: Members) -> None:
        """Who of a network is in other domains, for the hosts here that are on it."""
        self._networks.span(vni, members)

    def awaits(self, server_id: str) -> bool:
        """Whether its lease still runs, be its stream cut or not."""
        return server_id in self._deadlines

    async def ask(self, server_id: str, vm_id: str, timeout: float) -> HostedState:
        if server_id in self._live:
            return await self.ask_here(server_id, vm_id, timeout)
        server = self._ledger.table.server(server_id)
        if server is None or server.attached_to not in self._companions.others:
            return HostedState.UNKNOWN
        return await self._companions.ask(server.attached_to, server_id, vm_id, timeout)

    async def ask_here(self, server_id: str, vm_id: str, timeout: float) -> HostedState:
        """Only if its agent is attached to this replica."""
        session = self._live.get(server_id)
        return HostedState.UNKNOWN if session is None else await session.ask(vm_id, timeout)

    def listen(self, server_id: str, order: Listen) -> None:
        """Only if its agent is attached to this replica: every replica sees the move."""
        session = self._live.get(server_id)
        if session is not None:
            session.listen(order)

    def _became(self, stale_since_ms: int | None) -> None:
        """Cut off from the store we have no orders to give; another replica may."""
        if stale_since_ms is not None:
            self.close()

    def close(self) -> None:
        for session in list(self._live.values()):
            session.close()

    async def recover(self) -> None:
        """After a start: nobody is attached yet; everybody has one lease to come back."""
        for server in self._ledger.table.all(Server, indexes.SERVERS):
            self.renew(server.server_id)
        await self._ledger.submit(Restarted(self._companions.others))

    async def watch_leases(self) -> None:
        """One task: ends leases that ran out, and moves that wait for a silent destination."""
        while True:
            await self._clock.sleep(self.lease / 10)
            lapsed = sorted(self._lapsed().items())
            for start in range(0, len(lapsed), TOGETHER):
                await self._silence(lapsed[start : start + TOGETHER])

    async def _silence(self, lapsed: Sequence[tuple[str, str]]) -> None:
        """Write down that they are silent. Whoever has come back by now is not."""
        lapses = [LapseServer(*one) for one in lapsed if one[0] not in self._deadlines]
        try:
            results = await self._ledger.submit_all(lapses)
        except Refusal as refusal:
            results = [refusal]
        failed = [result for result in results if isinstance(result, Exception)]
        if failed:  # it is tried again at the next turn
            log.warning("leases not ended yet", servers=len(lapses), why=str(failed[0]))

    def _lapsed(self) -> dict[str, str]:
        """And to whom each was attached."""
        now, awaited = self._clock.monotonic(), dict(self._awaited())
        for server_id in [s for s, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[server_id]
            if server_id in self._live:
                self.detach(self._live[server_id])
            if server_id in awaited:
                log.warning("lease lapsed", server=server_id)
                self._given_up.add(server_id)
        for server_id, holder in awaited.items():
            if holder not in ("", self._companions.me) and server_id not in self._given_up:
                self._deadlines.setdefault(server_id, now + self.lease)  # to come to one of us
        self._given_up.intersection_update(awaited)
        return {s: holder for s, holder in awaited.items() if s not in self._deadlines}

    def _awaited(self) -> Iterator[tuple[str, str]]:
        """Of whom we still expect to hear, attached in the ledger or a destination, and to whom
        each is attached. Of what is attached to another replica that one expects to hear."""
        table, is_mine = self._ledger.table, self._companions.is_mine
        for server in table.all(Server, indexes.SERVERS):
            if server.liveness is Liveness.ATTACHED and is_mine(server.attached_to):
                yield server.server_id, server.attached_to
        for move in table.all(Operation, indexes.ACTIVE):
            awaited = move.in_motion and not is_abroad(move.destination)
            server_or_none = table.server(move.destination) if awaited else None
            if server_or_none is not None and is_mine(server_or_none.attached_to):
                yield move.destination, server_or_none.attached_to

    def _route(self, committed: Committed) -> None:
        """Mark what a change concerns. What became different on networks is put into words when
        everything that was committed together has been heard."""
        if not self._live:
            self._networks.forget()
            return
        was_settled = self._networks.settled
        for change in committed.changes:
            self._end_if_elsewhere(change.after)
            self._networks.note(change)
            for server_id, item in affected(self._ledger.table, change):
                session = self._live.get(server_id)
                if session is not None:
                    session.mark(item)
        if was_settled and not self._networks.settled:
            asyncio.get_running_loop().call_soon(self._networks.settle)

    def _end_if_elsewhere(self, after: object) -> None:
        """Its agent has attached to another replica, and hears everything there."""
        if isinstance(after, Server) and after.liveness is Liveness.ATTACHED:
            session = self._live.get(after.server_id)
            if session is not None and after.attached_to != self._companions.me:
                session.close()

    def _tell(self, vni: int, hosts: Iterable[str]) -> None:
        for server_id in hosts:
            session = self._live.get(server_id)
            if session is not None:
                session.mark(vni)
