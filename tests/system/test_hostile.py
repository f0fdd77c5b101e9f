"""A little of `scripts/hostile`: each attack, a fiftieth as much, and lookups go on."""

from __future__ import annotations

import asyncio

from deploy.bench.daemon import scratch
from deploy.faults.hostile import P99_MS, attack_all, grown_mib
from deploy.faults.victim import victim

GROWTH_MIB = 64.0


def test_lookups_are_answered_through_every_attack() -> None:
    with scratch() as folder, victim(folder) as attacked:
        seen = asyncio.run(attack_all(attacked, 0.02))
    for one in seen:
        assert one.lookups and not one.failed + one.new_failed, one
        assert one.p50_ms < P99_MS, one  # a busy machine's worst is its own; the script is strict
    assert grown_mib(seen) < GROWTH_MIB
