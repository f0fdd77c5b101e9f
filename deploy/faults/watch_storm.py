"""Many watchers, cut and held up at random, under writes and compaction (I4): each stream is
ordered and gap-free, or told to resynchronize.

What the writers were told that they had written is the truth. A watcher goes on from its last
bookmark; in the end it must have heard every write since its last snapshot, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from common import rpc
from common.clock import SystemClock
from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import (
    directory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    signaling_pb2_grpc,
)
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.sqlite import SqliteStore

HOSTS, VMS_EACH = ("host-1", "host-2"), 50
RING = 100  # changes in memory: who is further behind reads the store's log
KEPT_MS = 700  # of history in the log: who was away for longer must begin anew
COMPACT_EVERY = 0.2
WATCHER = rpc.identity("operator/storm/view")
PATIENCE_S = 30.0


Write: TypeAlias = tuple[int, str]  # the revision, and the VM


class Broken(Exception):
    """A stream was out of order, or had a gap, and was not told."""


@dataclass
class Ledgered:
    """What was acknowledged: each write (writers may share a revision), and as it must be in the
    end."""

    vms: dict[Write, str] = field(default_factory=dict)  # the host
    last: dict[str, int] = field(default_factory=dict)
    removed: int = 0
    end: int = 0  # the revision that has all of it

    def heard_by(self, host: str, after: int) -> set[Write]:
        return {w for w, where in self.vms.items() if w[0] > after and host in ("", where)}

    def seen_by(self, host: str) -> dict[str, int]:
        return {vm: r for vm, r in self.last.items() if host in ("", self.vms[r, vm])}


@dataclass
class Watcher:
    """`host`: only what that one owns; "": everything."""

    stub: Any
    chance: random.Random
    host: str
    position: int = 0  # everything up to here was heard: the last bookmark
    began: int = 0
    heard: set[Write] = field(default_factory=set)
    state: dict[str, int] = field(default_factory=dict)
    cuts: int = 0
    resumes: int = 0
    resyncs: int = 0
    events: int = 0

    async def run(self) -> None:
        """Until cancelled. A cut comes when it comes, also in the middle of a snapshot."""
        clock = SystemClock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0.05, 2.0)):
                    await self.read(naps=self.chance.random() < 0.3)
            self.cuts += 1
            await clock.sleep(self.chance.choice((0.0, 0.02, 0.3, 1.0)))

    async def read(self, until: int = 0, naps: bool = False) -> None:
        """`until`: a revision; else for as long as it lasts. `naps`: slower than the writers."""
        self.resumes += self.position > 0
        request = pb.WatchRequest(from_revision=self.position)
        if self.host:
            request.server_id = self.host
        call = self.stub.Watch(request, metadata=WATCHER)
        last, snapshot = self.position, None if self.position else dict[str, int]()
        try:
            while (event := await call.read()) is not grpc.aio.EOF:
                if event.revision < last:
                    raise Broken(f"revision {event.revision} after {last}")
                last = event.revision
                self.events += 1
                if event.resync:
                    self.resyncs += 1
                    self.position = 0
                    return
                if event.bookmark:
                    if snapshot is not None:
                        self.state, self.heard, self.began = snapshot, set(), last
                        snapshot = None
                    self.position = last
                    if until and last >= until:
                        return
                elif event.snapshot and snapshot is not None:
                    snapshot[event.vm.vm.vm_id] = event.vm.revision
                else:
                    self._take(event)
                if naps:
                    await SystemClock().sleep(0.005)
        finally:
            call.cancel()

    def _take(self, event: pb.WatchEvent) -> None:
        if event.vm_gone:
            self.state.pop(event.vm_gone, None)
        elif event.HasField("vm"):
            vm_id = event.vm.vm.vm_id
            self.heard.add((event.revision, vm_id))
            self.state[vm_id] = event.revision

    def check(self, truth: Ledgered) -> None:
        wanted = truth.heard_by(self.host, self.began)
        if self.heard != wanted:
            missed, invented = sorted(wanted - self.heard), sorted(self.heard - wanted)
            raise Broken(f"since {self.began}: missed {missed[:5]}, invented {invented[:5]}")
        ours = {(vm, r) for vm, r in self.state.items() if vm}
        wrong = ours ^ set(truth.seen_by(self.host).items())
        if wrong:
            raise Broken(f"what was put together is not the ledger's: {sorted(wrong)[:5]}")


@dataclass
class Storm:
    folder: Path
    watchers: int
    seconds: float
    seed: int
    truth: Ledgered = field(default_factory=Ledgered)
    readers: list[Watcher] = field(default_factory=list)
    compactions: int = 0

    async def run(self) -> None:
        """Raises `Broken`."""
        address = f"unix:{self.folder}/vcenter.sock"
        store = SqliteStore(self.folder / "ledger.db")
        config = Config(
            listen_plaintext=(address,),
            drain_seconds=0.0,
            lease_seconds=300.0,
            bookmark_seconds=0.1,
            audit_file=f"{self.folder}/audit.jsonl",
        )
        async with (
            VCenter(config, store, SystemClock(), ring=RING).running(),
            rpc.channel(address) as channel,
        ):
            stub = directory_pb2_grpc.DirectoryStub(channel)
            for number in range(self.watchers):
                chance = random.Random(self.seed * 1000 + number)
                self.readers.append(Watcher(stub, chance, ("", "", *HOSTS)[number % 4]))
            await self._rage(channel, store)
            for reader in self.readers:
                await self._finish(reader)

    async def _rage(self, channel: grpc.aio.Channel, store: SqliteStore) -> None:
        sessions = [await _attach(channel, host) for host in HOSTS]
        loads = [self._write(channel, host, random.Random(self.seed)) for host in HOSTS]
        loads += [reader.run() for reader in self.readers] + [self._compact(store)]
        tasks = [asyncio.create_task(load) for load in loads]
        done, _ = await asyncio.wait(
            tasks, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in sessions:
            session.cancel()
        for task in done:
            task.result()

    async def _write(self, channel: grpc.aio.Channel, host: str, chance: random.Random) -> None:
        """VMs come, change and go. Once a write was sent its answer is waited for."""
        stub = signaling_pb2_grpc.SignalingStub(channel)
        number = HOSTS.index(host)
        epochs: dict[str, int] = {}
        for turn in range(1, sys.maxsize):
            vm_id = f"00000000-0000-4000-8000-{number:04}{chance.randrange(VMS_EACH):08}"
            go = vm_id in epochs and chance.random() < 0.1
            step = self._remove(stub, host, vm_id, epochs.pop(vm_id)) if go else None
            step = step or self._put(stub, host, vm_id, turn, epochs)
            writing = asyncio.ensure_future(step)
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing
                raise

    async def _put(
        self, stub: Any, host: str, vm_id: str, turn: int, epochs: dict[str, int]
    ) -> None:
        nic = types.Interface(mac=f"02:00:00:{vm_id[-10:-8]}:{vm_id[-4:-2]}:{vm_id[-2:]}")
        resources = types.Resources(vcpus=turn % 1000 + 1, memory_mib=64)
        vm = types.Vm(vm_id=vm_id, interfaces=[nic], resources=resources)
        request = signaling.RegisterRequest(vm=vm, state=types.VM_STATE_RUNNING)
        reply = await stub.Register(request, metadata=rpc.identity(f"vserver/{host}"))
        revision = reply.record.revision
        self.truth.vms[revision, vm_id] = host
        self.truth.last[vm_id] = revision
        self.truth.end = max(self.truth.end, revision)
        epochs[vm_id] = reply.record.location.epoch

    async def _remove(self, stub: Any, host: str, vm_id: str, epoch: int) -> None:
        request = signaling.DeregisterRequest(vm_id=vm_id, epoch=epoch)
        reply = await stub.Deregister(request, metadata=rpc.identity(f"vserver/{host}"))
        del self.truth.last[vm_id]
        self.truth.end = max(self.truth.end, reply.revision)
        self.truth.removed += 1

    async def _compact(self, store: SqliteStore) -> None:
        clock = SystemClock()
        while True:
            await clock.sleep(COMPACT_EVERY)
            await store.compact(clock.now_ms() - KEPT_MS)
            self.compactions += 1

    async def _finish(self, reader: Watcher) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while reader.position < self.truth.end:
                await reader.read(until=self.truth.end)
        reader.check(self.truth)


async def _attach(channel: grpc.aio.Channel, host: str) -> Any:
    """A vServer, so that it may register."""
    stub = session_pb2_grpc.SessionStub(channel)
    call = stub.Attach(metadata=rpc.identity(f"vserver/{host}"))
    server = types.Server(server_id=host, management_address="192.0.2.1", hypervisor="memory")
    await call.write(session_pb2.AgentMessage(hello=session_pb2.Hello(server=server)))
    await call.read()
    return call


def main() -> int:
    parser = argparse.ArgumentParser(prog="watch-storm", description=__doc__)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vs-storm-") as folder:
        storm = Storm(Path(folder), options.watchers, options.seconds, options.seed)
        try:
            asyncio.run(storm.run())
        except* Broken as group:
            print(f"BROKEN: {group.exceptions[0]}")
            sys.exit(1)
    print(words(storm))
    return 0


def words(storm: Storm) -> str:
    readers = storm.readers
    writes = len(storm.truth.vms) + storm.truth.removed
    return (
        f"{len(readers)} watchers, {storm.seconds:.0f} s: {writes} writes "
        f"({writes / storm.seconds:.0f}/s), {storm.compactions} compactions, "
        f"{sum(r.cuts for r in readers)} cuts, {sum(r.resumes for r in readers)} resumed, "
        f"{sum(r.resyncs for r in readers)} told to resynchronize, "
        f"{sum(r.events for r in readers)} events; all ordered and without gaps"
    )


if __name__ == "__main__":
    sys.exit(main())
