"""A domain that is cut off for ten minutes, while VMs come, go and move on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

from common.model.operation import Operation
from common.pb.vsignal.v1 import signaling_pb2 as pb
from deploy.simulation.country import LEVELS
from deploy.simulation.journal import Journal
from deploy.simulation.journey import VMS, Journey
from deploy.simulation.loop import VirtualLoop
from deploy.simulation.people import vm_id
from deploy.simulation.world import Host

CUT_OFF = "east"
CUT_S, NOTICED_S = 600.0, 30.0  # in which everybody has noticed
HEALED_S = 10.0  # so soon everybody must agree again
PAUSE_S = 5.0  # between what people do


class Severed(Journey):
    """The east is cut off from the vCenter above it. `seconds`: how long it took after that until
    all agreed again."""

    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        super().__init__(seed, loop, journal, LEVELS)
        self.seconds = 0.0
        self.done: list[str] = []  # in words, what people did meanwhile
        self._new: Iterator[int] = count(11)

    async def tell(self) -> None:
        await self.begin()
        await self._depart()
        away, parent = (self.world.centers[name].address for name in (CUT_OFF, "middle"))
        for ends in ((away, parent), (parent, away)):
            self.world.network.block(ends)
        await asyncio.gather(self._live(), self._look())
        self.world.network.heal()
        self.seconds = await self.agree(HEALED_S + 2.0, every=0.5, times=2)
        if self.seconds > HEALED_S:
            self.world.journal.violated("I6", f"they agreed after {self.seconds:.1f} s only")
        self.promises()

    async def _depart(self) -> None:
        """A VM is on its way into the east, and another one out of it, when it is cut off."""
        for number in range(1, VMS + 1):
            home = self.authority.domain(vm_id(number))
            to = "far/f1" if home == CUT_OFF else "east/e1"
            who = next(t for t in self.travellers if t.domain == home)
            who.process.spawn(who.relocate(number, to))
        await asyncio.sleep(self.chance.uniform(0.1, 0.4))

    async def _live(self) -> None:
        """VMs come, go and move on either side; from one to the other they cannot."""
        end = self.world.loop.time() + CUT_S
        while self.world.loop.time() < end:
            host = self.chance.choice(list(self.world.hosts.values()))
            self.chance.choice((self._come, self._go, self._move, self._move))(host)
            await asyncio.sleep(self.chance.uniform(0, 2 * PAUSE_S))

    def _come(self, host: Host) -> None:
        if self.resident.create(next(self._new), host):
            self.done.append("come")

    def _go(self, host: Host) -> None:
        here = [n for n in self.numbers() if vm_id(n) in host.machine.vms]
        free = [n for n in here if n > VMS and vm_id(n) not in self._moving()]
        if free:
            self.resident.remove(free[-1], host)
            self.done.append("gone")

    def _moving(self) -> set[str]:
        return {
            record.vm_id
            for center in self.world.centers.values()
            for record in center.laws.records.values()
            if isinstance(record, Operation) and not record.phase.final
        }

    def _move(self, host: Host) -> None:
        """Asked for at the vCenter of the VM's own domain, or at the one above."""
        number = self.chance.choice(self.numbers())
        home = self.authority.domain(vm_id(number))
        target = host.center.site.domain
        who = next(t for t in self.travellers if t.domain == home) if home else self.travellers[0]
        is_across = CUT_OFF in (home, target) and home != target
        self.done.append("tried across" if is_across else "moved")
        who.process.spawn(who.relocate(number, f"{target}/{host.name}"))

    def numbers(self) -> list[int]:
        """Of the VMs that somebody has."""
        vms = {vm_id for host in self.world.hosts.values() for vm_id in host.machine.vms}
        return sorted(int(vm_id[-12:]) for vm_id in vms)

    async def _look(self) -> None:
        """Whoever is on the other side says of a VM that it is stale, and nothing else."""
        begun = self.world.loop.time()
        while self.world.loop.time() < begun + CUT_S:
            await asyncio.sleep(PAUSE_S)
            who, number = self.chance.choice(self.travellers), self.chance.choice(self.numbers())
            asked_at = self.world.loop.time()
            before = self.authority.domain(vm_id(number))
            result = await who.process.spawn(who.ask(number))
            is_far = CUT_OFF in (before, who.domain) and before != who.domain
            if is_far and result is not None and asked_at > begun + NOTICED_S:
                self._must_be_stale(who.domain, number, result)

    def _must_be_stale(self, asked: str, number: int, result: pb.LookupResult) -> None:
        if result.certainty != pb.CERTAINTY_STALE:
            name = pb.Certainty.Name(result.certainty)[10:].lower()
            text = f"{asked}, cut off from vm{number}'s domain, called its answer {name}"
            self.world.journal.violated("wrong answer", text)
