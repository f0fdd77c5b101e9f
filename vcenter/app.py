"""The vCenter, composed: store, ledger, sessions, wire. Everything is handed in here."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import structlog

from common import rpc
from common.clock import Clock, SystemClock
from common.ids import NewId, random_id
from common.lifecycle import Daemon
from common.tls import Keeper, TlsError
from vcenter.agents.monitor import Monitor
from vcenter.agents.sessions import Sessions
from vcenter.ca import authority
from vcenter.ca.issuer import Issuer
from vcenter.config import CallerSettings, Config
from vcenter.core.queue import Limits
from vcenter.core.view import FreezeLimits
from vcenter.federation.carrying import Carrier
from vcenter.federation.federation import Federation
from vcenter.federation.homes import Homes
from vcenter.federation.receiving import Receiver
from vcenter.federation.relay import Relay
from vcenter.federation.settings import DomainSettings, dial
from vcenter.federation.spanning import Spanning
from vcenter.federation.tellings import Tellings
from vcenter.fencing import Fencer
from vcenter.journal import FileJournal, Journal, MemoryJournal
from vcenter.ledger.feed import RING
from vcenter.ledger.keeping import keep_history, keep_operations
from vcenter.ledger.ledger import Ledger
from vcenter.moves.board import Board
from vcenter.moves.dispatcher import Dispatcher
from vcenter.moves.listening import Listening
from vcenter.replicas.companions import Alone, Companions
from vcenter.replicas.replica import Replica
from vcenter.store.etcd import EtcdStore
from vcenter.store.memory import MemoryStore
from vcenter.store.port import Store
from vcenter.store.sqlite import SqliteStore
from vcenter.wire.answers import Answers
from vcenter.wire.caller import Callers
from vcenter.wire.context import Parts
from vcenter.wire.limits import Allowance, CallLimits
from vcenter.wire.server import JoinServer, WireServer
from vcenter.wire.shown import Shown
from vcenter.wire.vouched import Vouched

log = structlog.get_logger()
TRUST_EVERY_S = 2.0


def make_store(config: Config, clock: Clock) -> Store:
    if config.etcd is not None:
        return EtcdStore(config.etcd, clock)
    path = config.database
    return MemoryStore() if path is None else SqliteStore(path)


def make_journal(config: Config) -> Journal:
    path = config.audit
    return MemoryJournal() if path is None else FileJournal(path, config.audit_mib << 20)


class VCenter:
    """One vCenter. `running()` serves for as long as its block lasts.

    What it needs of the world is handed in: ids, chance, and the ways in and out (`make_server`,
    `dial`).
    `ring`: the latest changes that watchers find in memory; what came before is read from the
    store.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        clock: Clock,
        new_id: NewId = random_id,
        make_server: Callable[[], grpc.aio.Server] = rpc.server,
        ring: int = RING,
        dial: Callable[[DomainSettings], grpc.aio.Channel] = dial,
        chance: random.Random | None = None,
    ) -> None:
        self.config = config
        self._store = store
        self._clock = clock
        self._make_server = make_server
        self.ledger = Ledger(
            store,
            clock,
            ring=ring,
            journal=make_journal(config),
            limits=FreezeLimits(config.freeze_after, int(config.freeze_seconds * 1000)),
        )
        replica = Replica(self.ledger, store, clock) if isinstance(store, EtcdStore) else None
        self._companions: Companions = replica or Alone()
        self.sessions = Sessions(
            self.ledger, clock, config.lease_seconds, new_id, companions=self._companions
        )
        if replica is not None:
            replica.answer_with(self.sessions.ask_here)
        moves = config.moves
        limits = Limits(moves.per_source, moves.per_destination, moves.per_link)
        self._dispatcher = Dispatcher(self.ledger, clock, limits)
        self._listening = Listening(self.ledger.feed, self.sessions)
        self._fencer = Fencer(self.ledger, clock, config.fence, self._is_oldest)
        chance = chance or random.Random()
        self.federation = Federation(
            config.domain, config.domains, self.ledger, dial, clock, chance
        )
        self._tellings = Tellings(config.domains, self.ledger, clock)
        homes = Homes(self.ledger.table, self.federation)
        self._carrier = Carrier(config.domain, self.ledger, homes, clock, chance)
        self._spanning = Spanning(self.ledger, self.federation, self.sessions.span, clock)
        receiver = Receiver(
            config.domain,
            self.ledger,
            clock,
            self.sessions.awaits,
            self.sessions.ask,
            self._companions.pass_on,
        )
        if replica is not None:
            replica.listen(receiver.heard_elsewhere)
        self.parts = Parts(
            domain=config.domain,
            ledger=self.ledger,
            sessions=self.sessions,
            monitor=Monitor(),
            board=Board(self.ledger.feed, clock),
            answers=Answers(self.ledger.feed, config.domain),
            federation=self.federation,
            relay=Relay(config.domain, homes),
            carrier=self._carrier,
            receiver=receiver,
            spanning=self._spanning,
            clock=clock,
            calls=CallLimits(clock, _allowance(config.infrastructure), _allowance(config.confined)),
            tellings=self._tellings,
            shown=Shown(self._tellings),
            callers=Callers(
                config.domain,
                self.ledger,
                clock,
                Vouched(config.domain, config.domains),
                tls=config.tls is not None,
            ),
            bookmark_seconds=config.bookmark_seconds,
            new_id=new_id,
            limits=limits,
            has_fence=self._fencer.has_device,
            issuer=_issuer(config),
        )
        self.ledger.freshness.listen(self.parts.answers.stale)
        self.ports: list[int] = []
        self.join_port = 0

    def _is_oldest(self) -> bool:
        """Of several replicas one does what is to be done once."""
        return self._companions.is_mine("")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[VCenter]:
        """Raises `StoreUnusable` before anything is served. Leaving drains and closes."""
        await self.ledger.open()
        try:
            keeper = Keeper(self.config.tls) if self.config.tls else None
            ways_in = self._ways_in(keeper)
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self.ledger.writer.run())
                await self._companions.begin()
                following = tasks.create_task(self._companions.run())
                await self.sessions.recover()
                background = [tasks.create_task(loop) for loop in self._background(keeper)]
                for way in ways_in:
                    await way.start()
                self._say_where()
                try:
                    yield self
                finally:
                    for task in background:
                        task.cancel()
                    for way in reversed(ways_in):
                        await way.stop(self.config.drain_seconds)
                    await self.ledger.writer.drain()
                    writer.cancel()
                    following.cancel()
                    await self.ledger.audit.flush()
        finally:
            await self.ledger.close()

    def _ways_in(self, keeper: Keeper | None) -> list[WireServer | JoinServer]:
        """Raises `CannotListen`."""
        config = self.config
        wire = WireServer(
            self._make_server(), self.parts, config.listen, config.listen_plaintext, keeper
        )
        self.ports = wire.ports
        if keeper is None or config.ca is None:
            return [wire]
        join = JoinServer(self._make_server(), self.parts, config.ca.listen, keeper)
        self.join_port = join.port
        return [wire, join]

    def _background(self, keeper: Keeper | None) -> list[Coroutine[Any, Any, None]]:
        """What goes on for as long as it serves."""
        return [
            self.sessions.watch_leases(),
            self._dispatcher.run(),
            self._fencer.run(),
            keep_history(self._store, self._clock, self.config.history_hours),
            keep_operations(
                self.ledger, self._clock, self.config.operations_hours, self._is_oldest
            ),
            self._keep_trust(keeper),
            self.ledger.audit.run(),
            self.federation.run(),
            self._carrier.run(),
            self._spanning.run(),
            self._tellings.run(),
        ]

    def _say_where(self) -> None:
        config = self.config
        log.info("serving", listen=config.listen, revision=self.ledger.table.revision)
        if config.listen_plaintext:
            text = "PLAIN TEXT: whoever reaches these addresses is whom it says it is"
            log.warning(text, listen_plaintext=config.listen_plaintext)

    async def _keep_trust(self, keeper: Keeper | None) -> None:
        """Files that were replaced are taken up, our own certificate is renewed, and streams end
        with the certificates of those who opened them."""
        while keeper is not None:
            await self._clock.sleep(TRUST_EVERY_S)
            self.parts.callers.expire()
            try:
                if keeper.refresh():
                    log.info("certificate taken up", serial=keeper.current.certified.serial)
                if self.parts.issuer is not None:
                    self.parts.issuer.renew_own(keeper, self._clock.now_ms())
            except (TlsError, OSError) as error:
                log.error("the certificate in use stays", error=str(error))


def _allowance(settings: CallerSettings) -> Allowance:
    return Allowance(settings.calls_per_second, settings.at_a_time, settings.bytes_per_call)


def _issuer(config: Config) -> Issuer | None:
    """Raises `AuthorityError`."""
    ca = config.ca
    if ca is None:
        return None
    return Issuer(
        authority.read(config.domain, ca.certificate, ca.key),
        timedelta(hours=ca.host_hours),
        timedelta(days=ca.operator_days),
        ca.issuing,
        config.server or next(iter(config.listen), ""),
    )


async def serve(config: Config, daemon: Daemon) -> None:
    """The daemon's main."""
    _calm_the_collector()
    clock = SystemClock()
    async with VCenter(config, make_store(config, clock), clock).running():
        gc.collect()
        gc.freeze()
        daemon.ready()
        await daemon.stopping.wait()


def _calm_the_collector() -> None:
    """Rarer collections: most of what a call leaves behind is freed by its reference count, and
    what was loaded at the start stays (it is frozen then, so that no collection walks through it).
    The youngest not too rarely: grpc.aio leaves six objects of each call in a circle, and memory
    that comes back while the processor still has it is worth more than a collection costs."""
    gc.set_threshold(5_000, 200, 50)
