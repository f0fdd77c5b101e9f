"""One seed from beginning to end: a quiet start, a time of trouble, and peace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from common.model.server import Group
from deploy.simulation.agreement import Agreement
from deploy.simulation.failover import Failover
from deploy.simulation.faults import Faults
from deploy.simulation.journal import Journal
from deploy.simulation.loop import VirtualLoop
from deploy.simulation.people import TENANT, Operator, Person
from deploy.simulation.telling import Told, told
from deploy.simulation.watcher import Watcher
from deploy.simulation.world import Host, World

HOSTS, VMS = 3, 5
TROUBLE_S = 40.0
GATED = ((0, 1), (0, 1, 2))  # hosts, by turns: one has no gate, or all have
PEACE_S = 120.0  # within which everybody must agree again
FAULTS = (20, 28)


class Story:
    gated: tuple[int, ...] = ()

    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        self.world = World(seed, loop, journal)
        self.chance = random.Random(f"{seed}/story")
        self.operator = Operator(self.world, random.Random(f"{seed}/operator"), self.world.center)
        self.person = Person(self.world, random.Random(f"{seed}/person"))
        self.failover = Failover(self.world, self.operator, self.person)
        self.watcher = Watcher(self.world, self.world.center)
        self.faults = Faults(self.world, random.Random(f"{seed}/faults"))
        self._fate = random.Random(f"{seed}/fate")

    async def tell(self) -> None:
        world = self.world
        world.center.boot()
        for number in range(HOSTS):
            gated = number in self.gated
            world.boot_agent(world.add_host(world.center, gated=gated))
        self.watcher.process.spawn(self.watcher.run())
        await self.operator.process.spawn(self.operator.declare())
        hosts = list(world.hosts.values())
        for number in range(1, VMS + 1):
            self.person.create(number, self.chance.choice(hosts))
        world.write()
        await asyncio.sleep(3.0)
        await asyncio.gather(self._trouble(), self._work())
        self.faults.heal()
        await self._peace()

    # ---- trouble ----

    async def _trouble(self) -> None:
        wanted = self._fate.randint(*FAULTS)
        moments = sorted(self._fate.uniform(0, TROUBLE_S) for _ in range(wanted))
        begun = self.world.loop.time()
        for moment in moments:
            await asyncio.sleep(max(0.0, begun + moment - self.world.loop.time()))
            self.faults.strike()

    async def _work(self) -> None:
        """What people want meanwhile."""
        end = self.world.loop.time() + TROUBLE_S
        while self.world.loop.time() < end:
            self._act()
            await asyncio.sleep(self.chance.uniform(0.05, 1.2))

    def _act(self) -> None:
        """Mostly moves; each of the rest often enough."""
        host = self.chance.choice(list(self.world.hosts.values()))
        number = self.chance.randint(1, VMS)
        deeds: tuple[tuple[int, Callable[[], object]], ...] = (
            (50, lambda: self._spawn(self._move(number, host))),
            (3, lambda: self._spawn(self._attend(self.operator.drain(host.name)))),
            (2, lambda: self._spawn(self._attend(self.operator.move_group()))),
            (8, lambda: self.person.move(number, host)),
            (7, lambda: self.person.stop(number)),
            (10, lambda: self.person.start(number)),
            (6, lambda: self._spawn(self.operator.set_policy())),
            (5, lambda: self._spawn(self.operator.set_own_policy(number))),
            (2, lambda: self._spawn(self.operator.assign(5))),
            (2, lambda: self._spawn(self.operator.where(number))),
            (2, lambda: self._spawn(self.operator.history(number))),
            (8, lambda: self._spawn(self.failover.keep(self.chance.choice((2, 4)), host))),
            (1, lambda: self._spawn(self.failover.end(self.chance.choice((2, 4))))),
            (2, lambda: self._spawn(self.failover.promote(self.chance.choice((2, 4))))),
            (3, lambda: self._spawn(self.failover.lose())),
            (1, self.world.center.stop),
            (2, lambda: self.world.stop_agent(host)),
        )
        weights = [weight for weight, _ in deeds]
        self.chance.choices([deed for _, deed in deeds], weights)[0]()

    def _spawn(self, what: Any) -> None:
        self.operator.process.spawn(what)

    async def _move(self, number: int, host: Host) -> None:
        destination = host.name if self.chance.random() < 0.7 else ""
        await self._attend(self.operator.relocate(number, destination))

    async def _attend(self, order: Coroutine[Any, Any, str]) -> None:
        """What becomes of an order is cancelled, followed or waited for."""
        operation_id = await order
        if not operation_id:
            return
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.uniform(0, 0.9))
            await self.operator.cancel(operation_id)
        elif self.chance.random() < 0.5:
            await self.operator.follow(operation_id)
        else:
            await self.operator.wait(operation_id)

    # ---- peace ----

    async def _peace(self) -> None:
        left: list[str] = []
        end = self.world.loop.time() + PEACE_S
        agreed = 0
        while self.world.loop.time() < end and agreed < 3:
            await asyncio.sleep(2.0)
            left = Agreement(self.world).disagreements()
            agreed = agreed + 1 if not left else 0
        for text in left:
            self.world.journal.violated("I6", text)
        await asyncio.sleep(11.0)  # for the watcher's last bookmark
        self._promises()

    def _promises(self) -> None:
        """What was acknowledged is there; what was to be told was told."""
        world, records = self.world, self.world.center.laws.records
        for operation_id in self.operator.promised:
            if f"op/{operation_id}" not in records:
                world.journal.violated("I2", "a move that was acknowledged is not known any more")
        for text in self.watcher.missed():
            world.journal.violated("I4", text)
        group = records.get(f"group/{TENANT}/web")
        if self.operator.policy is not None and isinstance(group, Group):
            self.operator.check_policy(group)


def tell(seed: int, *, keep: bool = False) -> Told:
    """Run one seed. `keep`: with what the daemons log."""
    return told(seed, Story, keep=keep)


class GatedStory(Story):
    """Most hosts' agents are their libvirtds' lock managers."""

    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        super().__init__(seed, loop, journal)
        self.gated = GATED[seed % len(GATED)]


def tell_gated(seed: int, *, keep: bool = False) -> Told:
    return told(seed, GatedStory, keep=keep)
