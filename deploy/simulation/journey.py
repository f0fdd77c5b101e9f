"""One seed of several domains: a quiet start, a time of trouble, and peace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from common.model.operation import Operation
from common.pb.vsignal.v1 import signaling_pb2 as pb
from deploy.simulation.agreement import Agreement
from deploy.simulation.authority import Authority
from deploy.simulation.country import LEVELS, PEERS, Country
from deploy.simulation.journal import Journal
from deploy.simulation.loop import VirtualLoop
from deploy.simulation.people import a_profile, vm_id
from deploy.simulation.telling import Told, told
from deploy.simulation.travel import Resident, Traveller
from deploy.simulation.upheaval import Upheaval
from deploy.simulation.world import World

VMS = 3
PEACE_S = 120.0  # within which everybody must agree again
A_LONG_ONE = 9  # seeds: one of so many


@dataclass(frozen=True, slots=True)
class Trouble:
    """For how long, and how many faults: at least, at most."""

    seconds: float
    faults: tuple[int, int]


# Most stories are short: there is more to find in many beginnings than in the end of one.
# In a long one links are silent until they are given up, and trouble comes on top of trouble.
SHORT, LONG = Trouble(4.0, (2, 4)), Trouble(15.0, (8, 12))


class Journey:
    """`country`: by turns, if it is not given."""

    def __init__(
        self, seed: int, loop: VirtualLoop, journal: Journal, country: Country | None = None
    ) -> None:
        self.country = country or (LEVELS, PEERS)[seed % 2]
        self.world = World(seed, loop, journal, self.country.sites)
        self.authority = Authority(journal, loop.time)
        self.chance = random.Random(f"{seed}/story")
        self.travellers = [
            Traveller(self.world, random.Random(f"{seed}/operator/{n}"), center, self.authority)
            for n, center in enumerate(self.world.centers.values())
        ]
        self.resident = Resident(self.world, random.Random(f"{seed}/person"))
        self.faults = Upheaval(self.world, random.Random(f"{seed}/faults"))
        self._fate = random.Random(f"{seed}/fate")
        self._length = LONG if seed % A_LONG_ONE == 5 else SHORT

    async def tell(self) -> None:
        await self.begin()
        await asyncio.gather(self._trouble(), self.work(self._length.seconds))
        self.faults.heal()
        await self.agree(PEACE_S)
        self.promises()

    async def begin(self) -> None:
        world = self.world
        world.journal.say("story", self.country.name)
        for domain, center in world.centers.items():
            center.laws.placed = self._placed(domain)
            center.boot()
        for domain, names in self.country.hosts.items():
            for name in names:
                world.boot_agent(world.add_host(world.centers[domain], name))
        profile = a_profile(random.Random(0))
        for traveller in self.travellers:
            await traveller.process.spawn(traveller.declare(profile))
        hosts = list(world.hosts.values())
        for number in range(1, VMS + 1):
            self.resident.create(number, self.chance.choice(hosts))
        await asyncio.sleep(3.0)

    def _placed(self, domain: str) -> Callable[..., None]:
        return lambda *change: self.authority.placed(domain, *change)

    # ---- trouble ----

    async def _trouble(self) -> None:
        wanted = self._fate.randint(*self._length.faults)
        moments = sorted(self._fate.uniform(0, self._length.seconds) for _ in range(wanted))
        begun = self.world.loop.time()
        for moment in moments:
            await asyncio.sleep(max(0.0, begun + moment - self.world.loop.time()))
            self.faults.strike()

    async def work(self, seconds: float, pause: float = 0.8) -> None:
        """What people want meanwhile, anywhere."""
        end = self.world.loop.time() + seconds
        while self.world.loop.time() < end:
            self._act()
            await asyncio.sleep(self.chance.uniform(0.05, pause))

    def _act(self) -> None:
        """Mostly moves to another domain; each of the rest often enough."""
        chance, resident = self.chance, self.resident
        who = chance.choice(self.travellers)
        host = chance.choice(list(self.world.hosts.values()))
        domain, number = host.center.site.domain, chance.randint(1, VMS)
        home = self.authority.domain(vm_id(number)) or domain
        deeds: tuple[tuple[int, Callable[[], object]], ...] = (
            (40, lambda: self._order(who, who.relocate(number, f"{domain}/{host.name}"))),
            (15, lambda: self._order(who, who.relocate(number, f"{domain}/"))),
            (4, lambda: self._order(who, who.move_group_to(domain, home))),
            (30, lambda: who.process.spawn(who.ask(number))),
            (3, lambda: resident.stop(number)),
            (5, lambda: resident.start(number)),
            (1, lambda: who.process.spawn(who.set_own_policy(number))),
        )
        weights = [weight for weight, _ in deeds]
        chance.choices([deed for _, deed in deeds], weights)[0]()

    def _order(self, who: Traveller, order: object) -> None:
        async def attended() -> None:
            await who.attend(await order)  # type: ignore[misc]

        who.process.spawn(attended())

    def numbers(self) -> list[int]:
        """Of the VMs that are asked for."""
        return list(range(1, VMS + 1))

    # ---- peace ----

    async def agree(self, within: float, every: float = 2.0, times: int = 3) -> float:
        """Everybody must. Seconds until they did, or else what is left is a violation."""
        left: list[str] = []
        begun = self.world.loop.time()
        agreed, since = 0, begun
        while self.world.loop.time() < begun + within and agreed < times:
            await asyncio.sleep(every)
            left = [
                *Agreement(self.world, self.country.near).disagreements(),
                *await self._answers(),
            ]
            since = since if agreed or left else self.world.loop.time()
            agreed = agreed + 1 if not left else 0
        for text in left:
            self.world.journal.violated("I6", text)
        return since - begun

    async def _answers(self) -> list[str]:
        """Who does not know where a VM is."""
        wrong = []
        for traveller in self.travellers:
            for number in self.numbers():
                result = await traveller.process.spawn(traveller.ask(number))
                wrong += self._wrong(traveller.domain, number, result)
        return wrong

    def _wrong(self, asked: str, number: int, result: pb.LookupResult | None) -> list[str]:
        owner, epoch = self.authority.owner(vm_id(number))
        said = result or pb.LookupResult()
        if not owner and (not said.found or said.certainty == pb.CERTAINTY_STALE):
            return []  # it was deregistered; where it was before may still be told
        place = f"{said.authority}/{said.location.server_id}" if said.found else ""
        at_home = asked == self.authority.domain(vm_id(number))
        sure = pb.CERTAINTY_AUTHORITATIVE if at_home else pb.CERTAINTY_CACHED
        if (place, said.location.epoch) == (owner, epoch) and said.certainty == sure:
            return []
        name = pb.Certainty.Name(said.certainty)[10:].lower()
        return [f"{asked}: vm{number} is on {place or 'none'}, {name}, and not on {owner}"]

    def promises(self) -> None:
        """What was acknowledged is there."""
        known = {
            record.operation_id
            for center in self.world.centers.values()
            for record in center.laws.records.values()
            if isinstance(record, Operation)
        }
        for operation_id in (o for t in self.travellers for o in t.promised):
            if operation_id not in known:
                text = "a move that was acknowledged is not known any more"
                self.world.journal.violated("I2", text)


def tell(seed: int, *, keep: bool = False) -> Told:
    """Run one seed. `keep`: with what the daemons log."""
    return told(seed, Journey, keep=keep)
