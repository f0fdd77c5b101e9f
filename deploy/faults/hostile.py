"""Hostile traffic against a vCenter of its own, over mutual TLS, and what good clients notice.

`scripts/hostile [--scale 0.01] [--json FILE]`. Exits with 1 if a lookup's p99 reached 500 ms during
an attack, one failed, one on a new connection failed, somebody with a wrong certificate was let in,
or the vCenter's memory grew by more than 512 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import grpc

from common import rpc
from common.lifecycle import use_all_files
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2_grpc
from common.pb.vsignal.v1.types_pb2 import VmKey
from common.tls import Bundle
from deploy.bench.daemon import NOBODY, scratch
from deploy.faults import attacks
from deploy.faults.attacks import Attack, Target
from deploy.faults.impostors import wrong_certificates
from deploy.faults.victim import Victim, victim

P99_MS = 500.0
GROWTH_MIB = 512.0  # a half-open TLS handshake costs some 50 KB, and malloc keeps them for the next
EVERY_S = 0.005
NEWCOMER_EVERY_S = 0.2
WITHIN_S = 10.0
AT_LEAST_S = 1.0
ATTACKS: dict[str, tuple[Attack, int]] = {
    **attacks.ATTACKS,
    "wrong certificates": (wrong_certificates, 1000),
}


@dataclass(frozen=True)
class Seen:
    """By clients with good certificates, while an attack lasted: one looks a VM up every few
    milliseconds, the other connects anew each time (`new_`)."""

    attack: str
    count: int
    seconds: float
    lookups: int
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    new_failed: int
    new_p99_ms: float
    memory_mib: float

    @property
    def held(self) -> bool:
        failed = self.failed + self.new_failed
        return self.lookups > 0 and not failed and self.p99_ms < P99_MS


class Watcher:
    """Looks up until it is told to stop."""

    def __init__(self, target: str, operator: Bundle) -> None:
        self._target = target
        self._operator = operator
        self.took_ms: list[float] = []
        self.failed = 0

    async def stay(self) -> None:
        """On one connection."""
        async with rpc.channel(self._target, self._operator) as channel:
            while True:
                await self._look_up(channel)
                await asyncio.sleep(EVERY_S)

    async def come_and_go(self) -> None:
        """On a new one each time."""
        while True:
            begun = time.perf_counter()
            async with rpc.channel(self._target, self._operator) as channel:
                await self._look_up(channel)
            left = NEWCOMER_EVERY_S - (time.perf_counter() - begun)
            await asyncio.sleep(max(0.0, left))

    async def _look_up(self, channel: grpc.aio.Channel) -> None:
        begun = time.perf_counter()
        request = pb.LookupRequest(keys=[VmKey(vm_id=NOBODY)])
        try:
            lookup = signaling_pb2_grpc.SignalingStub(channel).Lookup
            await lookup(request, timeout=WITHIN_S, wait_for_ready=True)  # connecting included
        except grpc.aio.AioRpcError:
            self.failed += 1
        self.took_ms.append((time.perf_counter() - begun) * 1000)

    def quantile(self, part: float) -> float:
        took = sorted(self.took_ms)
        return round(took[min(int(len(took) * part), len(took) - 1)], 1)


async def during(attacked: Victim, name: str, attack: Awaitable[int]) -> Seen:
    operator, target = attacked.domain.operator, attacked.server.target
    known, new = Watcher(target, operator), Watcher(target, operator)
    begun = time.monotonic()
    watching = [asyncio.create_task(known.stay()), asyncio.create_task(new.come_and_go())]
    try:
        count = await attack
        await asyncio.sleep(max(0.0, AT_LEAST_S - (time.monotonic() - begun)))
    finally:
        for task in watching:
            task.cancel()
    return Seen(
        attack=name,
        count=count,
        seconds=round(time.monotonic() - begun, 1),
        lookups=len(known.took_ms),
        failed=known.failed,
        p50_ms=known.quantile(0.5),
        p99_ms=known.quantile(0.99),
        worst_ms=known.quantile(1.0),
        new_failed=new.failed,
        new_p99_ms=new.quantile(0.99),
        memory_mib=round(attacked.server.memory_mib(), 1),
    )


async def nothing() -> int:
    await asyncio.sleep(2)
    return 0


async def attack_all(attacked: Victim, scale: float) -> list[Seen]:
    """Attackers are in a process of their own: what they take of the machine the clients do not
    notice as time of theirs. Raises `LetIn`."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        await loop.run_in_executor(pool, abs, 0)  # it is there before anything is measured
        seen = [await during(attacked, "none", nothing())]
        for name, (_, count) in ATTACKS.items():
            many = max(1, int(count * scale))
            attack = loop.run_in_executor(pool, _attack, name, attacked.target, many)
            seen.append(await during(attacked, name, attack))
        seen.append(await during(attacked, "none, afterwards", nothing()))
    return seen


def _attack(name: str, target: Target, count: int) -> int:
    """In the attackers' process."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that they are cut off is no news
    attack, _ = ATTACKS[name]
    return asyncio.run(_to_its_end(attack(target, count)))


async def _to_its_end(attack: Awaitable[int]) -> int:
    return await attack


def grown_mib(seen: list[Seen]) -> float:
    """The most that the vCenter's memory had grown by, when an attack had ended."""
    return max(one.memory_mib for one in seen) - seen[0].memory_mib


def show(seen: list[Seen]) -> None:
    print(f"{'attack':22}{'count':>8}{'s':>7}{'lookups':>9}{'failed':>8}", end="")
    print(f"{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}{'new p99':>9}{'failed':>8}{'MiB':>8}")
    for one in seen:
        print(
            f"{one.attack:22}{one.count:8}{one.seconds:7}{one.lookups:9}{one.failed:8}"
            f"{one.p50_ms:9}{one.p99_ms:9}{one.worst_ms:9}{one.new_p99_ms:9}{one.new_failed:8}"
            f"{one.memory_mib:8}"
        )
    print(f"memory grew by {grown_mib(seen):.0f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of every count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen")
    said = parser.parse_args()
    use_all_files()
    with scratch() as folder, victim(folder) as attacked:
        seen = asyncio.run(attack_all(attacked, said.scale))
    show(seen)
    if said.json:
        said.json.write_text(json.dumps([asdict(one) for one in seen], indent=2))
    return 0 if all(one.held for one in seen) and grown_mib(seen) <= GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
