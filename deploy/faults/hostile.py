"""Hostile traffic against a vCenter of its own, and what a well-behaved client notices of it.

`scripts/hostile [--scale 0.01] [--json FILE]`. Exits with 1 if a lookup's p99 reached 500 ms during
an attack, one failed, or the vCenter's memory grew by more than 256 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2_grpc
from common.pb.vsignal.v1.types_pb2 import VmKey
from common.rpc import CLIENT_OPTIONS
from deploy.bench.daemon import NOBODY, OPERATOR, Process, scratch, vcenter
from deploy.faults.attacks import ATTACKS

P99_MS = 500.0
GROWTH_MIB = 256.0
EVERY_S = 0.005
AT_LEAST_S = 1.0


@dataclass(frozen=True)
class Seen:
    """By one client that looks a VM up every few milliseconds, while an attack lasted."""

    attack: str
    count: int
    seconds: float
    lookups: int
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    memory_mib: float

    @property
    def held(self) -> bool:
        return self.lookups > 0 and not self.failed and self.p99_ms < P99_MS


class Watcher:
    """Looks up until it is told to stop."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.took_ms: list[float] = []
        self.failed = 0

    async def run(self) -> None:
        request = pb.LookupRequest(keys=[VmKey(vm_id=NOBODY)])
        options = list(CLIENT_OPTIONS)
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            lookup = signaling_pb2_grpc.SignalingStub(channel).Lookup
            while True:
                begun = time.perf_counter()
                try:
                    await lookup(request, metadata=OPERATOR, timeout=10)
                except grpc.aio.AioRpcError:
                    self.failed += 1
                self.took_ms.append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(EVERY_S)


async def during(server: Process, name: str, attack: Awaitable[int]) -> Seen:
    watcher, begun = Watcher(server.target), time.monotonic()
    watching = asyncio.create_task(watcher.run())
    try:
        count = await attack
        await asyncio.sleep(max(0.0, AT_LEAST_S - (time.monotonic() - begun)))
    finally:
        watching.cancel()
    took = sorted(watcher.took_ms)
    return Seen(
        attack=name,
        count=count,
        seconds=round(time.monotonic() - begun, 1),
        lookups=len(took),
        failed=watcher.failed,
        p50_ms=round(took[len(took) // 2], 1),
        p99_ms=round(took[int(len(took) * 0.99)], 1),
        worst_ms=round(took[-1], 1),
        memory_mib=round(server.memory_mib(), 1),
    )


async def nothing() -> int:
    await asyncio.sleep(2)
    return 0


async def attack_all(server: Process, scale: float) -> list[Seen]:
    host, _, port = server.target.rpartition(":")
    seen = [await during(server, "none", nothing())]
    for name, (attack, count) in ATTACKS.items():
        many = max(1, int(count * scale))
        seen.append(await during(server, name, attack(host, int(port), many)))
    seen.append(await during(server, "none, afterwards", nothing()))
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of every count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen")
    said = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with scratch() as folder, vcenter(folder) as server:
        seen = asyncio.run(attack_all(server, said.scale))
    grown = seen[-1].memory_mib - seen[0].memory_mib
    print(f"{'attack':22}{'count':>8}{'s':>7}{'lookups':>9}{'failed':>8}", end="")
    print(f"{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}{'MiB':>8}")
    for one in seen:
        print(
            f"{one.attack:22}{one.count:8}{one.seconds:7}{one.lookups:9}{one.failed:8}"
            f"{one.p50_ms:9}{one.p99_ms:9}{one.worst_ms:9}{one.memory_mib:8}"
        )
    print(f"memory grew by {grown:.0f} MiB")
    if said.json:
        said.json.write_text(json.dumps([asdict(one) for one in seen], indent=2))
    return 0 if all(one.held for one in seen) and grown <= GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
