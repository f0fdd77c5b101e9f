"""What goes wrong with several vCenters: each of them, and each link between two of them."""

from __future__ import annotations

import random

from deploy.simulation.center import Center
from deploy.simulation.faults import Faults
from deploy.simulation.world import Host, World


class Upheaval(Faults):
    """Of any vCenter, also of one that has no hosts, and of the hosts what matters to moves."""

    def __init__(self, world: World, chance: random.Random) -> None:
        super().__init__(world, chance)
        self._links = [
            (center.address, other.address)
            for center in world.centers.values()
            for other in center.site.domains
            if center.address < other.address
        ]
        self._kinds = (
            *3 * (self._kill_center,),
            *6 * (self._kill_center_soon,),
            self._stop_center,
            self._terminate_center,
            *5 * (self._part_one_way,),
            *3 * (self._part,),
            *2 * (self._cut_link,),
            self._slow_link,
            self._fill_disk,
            self._slow_disk,
            self._set_clock,
            self._lose_calls,
            self._double_calls,
            self._kill_agent,
            *2 * (self._kill_agent_soon,),
            self._block_one_way,
            self._hang_libvirtd,
            self._lose_answers,
            *3 * (self._next_copy,),
            self._kill_guest,
            self._power_cut,
        )

    def _center_of(self, host: Host) -> Center:
        return self._chance.choice(list(self._world.centers.values()))

    def _terminate_center(self, host: Host) -> None:
        self._center_of(host).stop()

    def _part_one_way(self, host: Host) -> None:
        a, b = self._chance.choice(self._links)
        ends = self._chance.choice(((a, b), (b, a)))
        self._world.network.block(ends)
        self._later(15.0, lambda: self._world.network.unblock(ends))

    def _part(self, host: Host) -> None:
        ends = self._chance.choice(self._links)
        for way in (ends, ends[::-1]):
            self._world.network.block(way)
        self._later(15.0, lambda: self._rejoin(ends))

    def _rejoin(self, ends: tuple[str, str]) -> None:
        for way in (ends, ends[::-1]):
            self._world.network.unblock(way)

    def _cut_link(self, host: Host) -> None:
        self._world.network.cut(*self._chance.choice(self._links))

    def _slow_link(self, host: Host) -> None:
        ends = self._chance.choice(self._links)
        for way in (ends, ends[::-1]):
            self._world.network.slow_down(way, self._chance.choice((0.1, 0.5, 3.0)))
