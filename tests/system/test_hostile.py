"""A little of `scripts/hostile`: each attack, a hundredth as much, and lookups go on."""

from __future__ import annotations

import asyncio

from deploy.bench.daemon import scratch, vcenter
from deploy.faults.hostile import GROWTH_MIB, attack_all


def test_lookups_are_answered_through_every_attack() -> None:
    with scratch() as folder, vcenter(folder) as server:
        seen = asyncio.run(attack_all(server, 0.02))
    for one in seen:
        assert one.held, one
    assert max(one.memory_mib for one in seen) - seen[0].memory_mib < GROWTH_MIB
