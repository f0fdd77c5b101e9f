"""kill -9 a serving vCenter under writes, again and again: nothing acknowledged is lost (I2).

Each writer counts in a group of its own. After a kill the ledger must have exactly the last count
that was acknowledged, or the one that was under way; never an older one, never a hole. Beside them
streams register VMs in chunks (`crash_chunks`), whose commands share revisions.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from common import rpc
from common.clock import SystemClock
from common.pb.vsignal.v1 import inventory_pb2, inventory_pb2_grpc, types_pb2
from deploy.faults.crash_chunks import Chunks, declare

WRITERS = 16
STREAMS = 4
MIN_RATE = 50.0
OPERATOR = rpc.identity("operator/crash")
_BASE, _STEP = 1_000_000, 1_000  # a count, as a rate that the contract accepts


class Lost(Exception):
    """Something that was acknowledged is not there."""


@dataclass
class Crash:
    folder: Path
    chance: random.Random
    acknowledged: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    streams: list[Chunks] = field(default_factory=lambda: [Chunks(n) for n in range(STREAMS)])

    @property
    def registered(self) -> int:
        """VMs, acknowledged."""
        return sum(len(stream.acknowledged) for stream in self.streams)

    @property
    def writes(self) -> int:
        """All that is acknowledged."""
        return sum(self.acknowledged.values()) + self.registered

    async def round(self) -> None:
        process = await self._start()
        try:
            async with rpc.channel(f"unix:{self.folder}/vcenter.sock") as channel:
                async with asyncio.timeout(30):
                    await channel.channel_ready()
                stub: inventory_pb2_grpc.InventoryAsyncStub
                stub = inventory_pb2_grpc.InventoryStub(channel)
                await self._verify(stub, channel)
                await self._write(stub, channel, process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> Process:
        config = self.folder / "vcenter.toml"
        config.write_text(
            f'listen_plaintext = ["unix:{self.folder}/vcenter.sock"]\n'
            f'store = "sqlite:{self.folder}/ledger.db"\n'
        )
        run = "from vcenter.cli import main; main()"
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", run, "run", "--config", str(config), stdout=DEVNULL
        )

    async def _write(
        self,
        stub: inventory_pb2_grpc.InventoryAsyncStub,
        channel: grpc.aio.Channel,
        process: Process,
    ) -> None:
        tenant = types_pb2.Tenant(tenant_id="crash")
        await stub.PutTenant(inventory_pb2.PutTenantRequest(tenant=tenant), metadata=OPERATOR)
        await declare(channel)
        before, clock = self.writes, SystemClock()
        began = clock.monotonic()
        writers = [asyncio.create_task(self._count(stub, f"g{n}")) for n in range(WRITERS)]
        writers += [asyncio.create_task(stream.register(channel)) for stream in self.streams]
        await clock.sleep(self.chance.uniform(0.2, 0.8))
        process.kill()
        lasted = clock.monotonic() - began
        await asyncio.gather(*writers)
        self.rates.append((self.writes - before) / lasted)

    async def _count(self, stub: inventory_pb2_grpc.InventoryAsyncStub, name: str) -> None:
        """Until the vCenter is gone."""
        while True:
            count = self.acknowledged.get(name, 0) + 1
            rate = types_pb2.Rate(bits_per_second=_BASE + _STEP * count)
            group = types_pb2.Group(
                tenant="crash", name=name, profile=types_pb2.Profile(ingress_rate=rate)
            )
            self.under_way[name] = count
            try:
                request = inventory_pb2.PutGroupRequest(group=group)
                await stub.PutGroup(request, metadata=OPERATOR, timeout=20)
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                return
            self.acknowledged[name] = count

    async def _verify(
        self, stub: inventory_pb2_grpc.InventoryAsyncStub, channel: grpc.aio.Channel
    ) -> None:
        for stream in self.streams:
            if wrong := await stream.missing(channel):
                raise Lost(wrong)
        request = inventory_pb2.ListGroupsRequest(tenant="crash")
        groups = (await stub.ListGroups(request, metadata=OPERATOR)).groups
        found = {g.name: (g.profile.ingress_rate.bits_per_second - _BASE) // _STEP for g in groups}
        for name, count in self.acknowledged.items():
            if found.get(name, 0) not in (count, self.under_way[name]):
                raise Lost(f"{name}: {count} was acknowledged, {found.get(name, 0)} is there")
        self.acknowledged.update(found)


async def crash(rounds: int, folder: Path, seed: int = 1) -> Crash:
    """One round more than asked for, which only looks."""
    trial = Crash(folder, random.Random(seed))
    for _ in range(rounds + 1):
        await trial.round()
    return trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="crash-ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vs-crash-") as folder:
        try:
            trial = asyncio.run(crash(options.rounds, Path(folder), options.seed))
        except Lost as lost:
            print(f"LOST: {lost}")
            return 1
    rate = statistics.median(trial.rates)
    print(
        f"{options.rounds} kills, {trial.writes} acknowledged writes, of which {trial.registered}"
        f" were VMs in chunks, none lost; median {rate:.0f}/s"
    )
    if rate < MIN_RATE:
        print(f"too slow to mean much: at least {MIN_RATE:.0f} writes/s were wanted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
