"""One seed from beginning to end: a quiet start, a time of trouble, and peace."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from logging import CRITICAL, INFO
from typing import Any

import structlog

from common.model.operation import Operation
from common.model.server import Group
from deploy.simulation.agreement import Agreement
from deploy.simulation.faults import Faults
from deploy.simulation.journal import Journal
from deploy.simulation.loop import Stuck, VirtualLoop, current, run, take_down
from deploy.simulation.people import TENANT, Operator, Person
from deploy.simulation.watcher import Watcher
from deploy.simulation.world import Host, World

HOSTS, VMS = 3, 5
TROUBLE_S = 40.0
PEACE_S = 120.0  # within which everybody must agree again
FAULTS = (20, 28)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one seed."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    faults: int
    moves: dict[str, int]
    seconds: float  # of virtual time
    lines: tuple[str, ...]


class Story:
    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        self.world = World(seed, loop, journal)
        self.chance = random.Random(f"{seed}/story")
        self.operator = Operator(self.world, random.Random(f"{seed}/operator"))
        self.person = Person(self.world, random.Random(f"{seed}/person"))
        self.watcher = Watcher(self.world)
        self.faults = Faults(self.world, random.Random(f"{seed}/faults"))
        self._fate = random.Random(f"{seed}/fate")

    async def tell(self) -> None:
        world = self.world
        world.boot_center()
        for _ in range(HOSTS):
            world.boot_agent(world.add_host())
        self.watcher.process.spawn(self.watcher.run())
        await self.operator.process.spawn(self.operator.declare())
        hosts = list(world.hosts.values())
        for number in range(1, VMS + 1):
            self.person.create(number, self.chance.choice(hosts))
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
            (1, self.world.stop_center),
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
        world, records = self.world, self.world.laws.records
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
    loop = VirtualLoop(lambda text: journal.violated("defect", text))
    journal = Journal(loop)
    logging_as_it_was = structlog.get_config()
    _listen(journal if keep else None)
    gc.collect()
    gc.disable()  # its moments depend on the machine's memory, and it closes generators
    story = Story(seed, loop, journal)
    try:
        run(loop, story.world.kernel, story.tell())
    except Stuck as error:
        journal.violated("I6", str(error))
    finally:
        told = _told(seed, story, journal, keep)
        take_down(loop, story.world.processes)
        gc.enable()
        structlog.configure(**logging_as_it_was)
    return told


def _told(seed: int, story: Story, journal: Journal, keep: bool) -> Told:
    moves: dict[str, int] = {}
    for record in story.world.laws.records.values():
        if isinstance(record, Operation):
            moves[record.phase.value] = moves.get(record.phase.value, 0) + 1
    return Told(
        seed=seed,
        violations=tuple(journal.violations),
        digest=journal.digest(),
        faults=story.faults.count,
        moves=moves,
        seconds=story.world.loop.time(),
        lines=tuple(journal.story if keep else journal.lines),
    )


def _listen(journal: Journal | None) -> None:
    """The daemons' own words, or silence: they say a lot."""

    def write(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
        if journal is not None:
            fields = {k: v for k, v in event.items() if k != "event" and v is not None}
            said = " ".join(f"{key}={value}" for key, value in sorted(fields.items()))
            journal.quote(current().name, f"{level}: {event['event']} {said}".rstrip())
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, write],
        wrapper_class=structlog.make_filtering_bound_logger(
            INFO if journal is not None else CRITICAL
        ),
    )
