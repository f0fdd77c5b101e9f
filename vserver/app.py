"""Composition of one agent. Everything it needs of the world is handed in.

So the same agent runs on a host, in a test beside twenty others, and under virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common import log
from common.clock import Clock
from common.codec.server import to_server
from common.errors import Refusal
from common.model.revision import generation
from common.model.vm import VmState
from common.pb.vsignal.v1 import session_pb2
from common.renewal import Renewal
from common.wake import Bell, first_of
from vserver.announcing import Announcing
from vserver.budget import Budget
from vserver.config import AgentConfig
from vserver.core.announce import Announcer
from vserver.core.epochs import Epochs
from vserver.core.ports import has_taps
from vserver.core.wanted import Wanted
from vserver.dataplane import DataPlane
from vserver.executor import Executor
from vserver.facts import describe
from vserver.guests import Guests
from vserver.hearing import Hearing
from vserver.hypervisor.port import Hypervisor
from vserver.link import Link
from vserver.listening import Listening
from vserver.monitor import Monitor
from vserver.moves.means import Means
from vserver.moves.orders import Moves
from vserver.network.port import Network
from vserver.outbox import Outbox
from vserver.session import Session
from vserver.state import Keeper, State

HYPERVISOR_EVERY = 1.0  # seconds between attempts to reach one that is not there yet

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The world, as the agent meets it. `links`: one a vCenter, in order of preference."""

    clock: Clock
    links: Sequence[Link]
    hypervisor: Hypervisor
    network: Network
    state: State
    version: str = "0"
    chance: random.Random = field(default_factory=random.Random)
    renewal: Renewal | None = None  # of the certificate, where there is one
    migration_name: str = ""  # in that certificate, where memory travels encrypted


class Agent:
    """One vServer. Stopping it changes no VM and closes no port."""

    def __init__(self, config: AgentConfig, parts: Parts) -> None:
        self.config = config
        self._parts = parts
        self._news = Bell()
        clock, hypervisor = parts.clock, parts.hypervisor
        self.epochs = Epochs()
        self.wanted = Wanted(self.epochs, config.vtep_address)
        self.outbox = Outbox()
        self.guests = Guests(
            hypervisor,
            self._guests_changed,
            lambda: self.executor.look.ring(),
            self._is_being_brought,
        )
        self.plane = DataPlane(parts.network, self.guests.taps)
        announcer = Announcer(self.epochs)
        self.listening = Listening(
            parts.network, lambda: self.wanted.vms, clock, self.outbox.silence
        )
        hearing = Hearing(
            self.wanted,
            self.epochs,
            self._wanted_changed,
            self.outbox.resync,
            self.listening.told,
        )
        self.session = Session(
            parts.links, hearing, self.outbox, self.guests.truth, clock, parts.chance
        )
        self.executor = Executor(
            self.wanted, self.guests, self.plane, lambda: self.monitor.wake.ring(), clock
        )
        self.announcing = Announcing(
            config.server_id,
            announcer,
            self.wanted,
            self.guests,
            self.epochs,
            lambda: self.session.link,
            clock,
            Budget(clock, parts.chance),
        )
        self.monitor = Monitor(
            hypervisor,
            self.wanted,
            self.guests,
            self.plane,
            self.epochs,
            announcer,
            self.session,
            self.outbox,
            clock,
        )
        means = Means(
            self.wanted,
            self.epochs,
            self.guests,
            self.plane,
            hypervisor,
            clock,
            self._news.next,
            self.outbox.progress,
        )
        self.moves = Moves(means, self.outbox.outcome)
        self.keeper = Keeper(self.epochs, parts.state, clock)
        self._announcer = announcer
        self._generation: int | None = None  # of the ledger that we spoke to last

    async def run(
        self, stopping: asyncio.Event | None = None, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Until `stopping` is set, or it is cancelled. Raises what the network raises if it cannot
        be opened: that closes every tap, and is done before anything else. An agent runs once."""
        parts = self._parts
        stopping = stopping or asyncio.Event()
        try:
            self.epochs.restore(await parts.state.load())
            await self.plane.open()
            if await self._reach_hypervisor(stopping):
                await self._serve(await self._hello(), stopping, ready)
        finally:
            await self.keeper.keep()
            for link in parts.links:
                await link.close()
            await parts.network.close()
            await parts.hypervisor.close()

    async def _reach_hypervisor(self, stopping: asyncio.Event) -> bool:
        """A host comes up in any order: wait for it, until it is there or `stopping` is set."""
        while not stopping.is_set():
            try:
                await self._parts.hypervisor.open()
            except (Refusal, TimeoutError) as error:
                _log.warning("the hypervisor cannot be reached: trying again", error=str(error))
                await first_of(stopping.wait(), self._parts.clock.sleep(HYPERVISOR_EVERY))
            else:
                return True
        return False

    async def _hello(self) -> session_pb2.Hello:
        """What the host is. What it holds is added for each stream (`hearing`)."""
        facts = await self._parts.hypervisor.facts()
        _log.info("host", hypervisor=facts.hypervisor, acceleration=facts.acceleration)
        server = describe(
            self.config,
            facts,
            self.plane.capabilities,
            self._parts.migration_name,
            keeps_standbys=self._parts.hypervisor.standbys is not None,
            carries_disks=self._parts.hypervisor.carries_disks,
        )
        return session_pb2.Hello(server=to_server(server), version=self._parts.version)

    async def _serve(
        self, hello: session_pb2.Hello, stopping: asyncio.Event, ready: Callable[[], None]
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            loops = (
                self.guests.follow(),
                self.executor.beat(),
                self.executor.guard(),
                self.executor.run(),
                self.moves.run(),
                self.announcing.run(),
                self.listening.run(),
                self.monitor.run(),
                self.keeper.run(),
                self.session.run(hello),
            )
            running = [tasks.create_task(loop) for loop in loops]
            if self._parts.renewal is not None:
                running.append(tasks.create_task(self._parts.renewal.run()))
            ready()
            await stopping.wait()
            for task in running:
                task.cancel()

    def _wanted_changed(self, vm_id: str | None) -> None:
        """Of one VM, of the networks (""), or of everything (None)."""
        if vm_id is None:
            self._reattached()
            self.moves.consider_all()
            self.moves.repeat()
            self.monitor.wake.ring()
        elif vm_id:
            self.moves.consider(vm_id)
        self.executor.wake.ring()
        self.announcing.wake.ring()
        self.keeper.wake.ring()
        self._news.ring()

    def _is_being_brought(self, vm_id: str) -> bool:
        """All that there is to know before it runs is known: it is on its way, and has its taps."""
        wanted, here = self.wanted.vms.get(vm_id), self.guests.vms.get(vm_id)
        if wanted is None or wanted.move is None or here is None:
            return False
        return here.state is VmState.INCOMING and has_taps(here)

    def _reattached(self) -> None:
        """Everything that is wanted has been told on a new stream. A ledger of another generation
        has been restored from a backup since: it must hear everything again."""
        now = generation(self.wanted.revision)
        if now == self._generation:
            self._announcer.reattached()
        else:
            self._announcer.assert_all()
        self._generation = now

    def _guests_changed(self) -> None:
        self.executor.wake.ring()
        self.announcing.wake.ring()
        self.monitor.wake.ring()
