"""Many watchers, cut at random, while the vCenter restarts and history is compacted (I4)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import grpc

from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import Agent
from tests.support.lab import Lab, running_lab
from tests.support.nouns import vm, vm_id

WATCHERS, SECONDS = 20, 6.0
VMS = 30


@contextmanager
def unless_ended() -> Iterator[None]:
    """The connection may go at any time; the task itself ends only when it is told to."""
    try:
        yield
    except grpc.aio.UsageError:
        pass  # on a channel that a restart has closed
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


class Reader:
    """Keeps what it heard as a state, and every event; resumes from what it has heard in full."""

    def __init__(self, lab: Lab, chance: random.Random, scope: dict[str, str]) -> None:
        self.client, self.chance, self.scope = lab.client("operator/reader/view"), chance, scope
        self.position = 0
        self.cuts = self.resyncs = self.resumes = 0
        self.state: dict[str, int] = {}  # vm_id → revision of its record
        self.heard: dict[int, set[str]] = {}  # since the last snapshot
        self.began = 0

    async def read_for_ever(self) -> None:
        while True:
            with unless_ended(), suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0.02, 0.6)):
                    await self.read()
            self.cuts += 1
            if self.chance.random() < 0.2:  # it had not kept what it heard last
                self.position = max(self.began, self.position - 300)
            await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.3)))

    async def read(self, until: int = 0) -> None:
        request = pb.WatchRequest(from_revision=self.position, **self.scope)
        self.resumes += bool(self.position)
        call = self.client.directory.Watch(request)
        last, fresh = self.position, not self.position
        pending: dict[str, int] = {}
        try:
            async for event in call:
                assert event.revision >= last, "out of order"
                last = event.revision
                if event.WhichOneof("change") == "resync":
                    assert event.resync
                    self.resyncs += 1
                    self.position = 0
                    return
                if event.snapshot:
                    pending[event.vm.vm.vm_id] = event.vm.revision
                elif event.bookmark and fresh:
                    pending.pop("", None)
                    self.state, self.heard, fresh = pending, {}, False
                    self.began = self.position = event.revision
                elif event.bookmark:
                    self.position = event.revision
                else:
                    self.take(event)
                if until and self.position >= until:
                    return
        finally:
            call.cancel()

    def take(self, event: pb.WatchEvent) -> None:
        which = event.vm.vm.vm_id or event.vm_gone
        if not which:
            return
        self.heard.setdefault(event.revision, set()).add(which)
        if event.vm_gone:
            self.state.pop(which, None)
        else:
            self.state[which] = event.revision
        self.position = max(self.position, event.revision - 1)  # others may share the revision


class Journal:
    """Every change of a VM, read from the store before it may be compacted."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._last = lab.revision
        self.last_ms = 0
        self.vms: dict[int, set[str]] = {}

    async def keep(self) -> None:
        async for entry in self._lab.store.read(self._last):
            self._last, self.last_ms = entry.revision, entry.at_ms
            ids = {put.key[3:] for put in entry.puts if put.key.startswith("vm/")}
            if ids:
                self.vms[entry.revision] = ids


async def churn(lab: Lab, hosts: list[Agent], chance: random.Random) -> None:
    """VMs come, change, go and change tenants; also while the vCenter restarts."""
    while True:
        number = chance.randint(1, VMS)
        tenant = chance.choice(("blue", "red"))
        with unless_ended():
            host = hosts[number % 2]
            if chance.random() < 0.2:
                epoch = await epoch_of(lab, number)
                await host.deregister(vm_id(number), epoch)
            else:
                resources = types.Resources(vcpus=chance.randint(1, 9), memory_mib=512)
                await host.register(vm(number, tenant=tenant, resources=resources))
        await asyncio.sleep(0.001)


async def epoch_of(lab: Lab, number: int) -> int:
    record = lab.center.ledger.table.vm(vm_id(number))
    return record.location.epoch if record is not None else 0


async def disturb(
    lab: Lab, journal: Journal, chance: random.Random, enough: Callable[[], bool]
) -> None:
    """For some seconds; on a busy machine for longer, until enough has happened."""
    now = asyncio.get_running_loop().time
    until, at_last = now() + SECONDS, now() + 8 * SECONDS
    while now() < until or (now() < at_last and not enough()):
        await asyncio.sleep(chance.uniform(0.3, 0.9))
        if chance.random() < 0.5:
            await lab.restart()
        else:
            await journal.keep()
            await lab.store.compact(journal.last_ms)  # nothing that was not written down before


async def test_each_stream_is_ordered_gap_free_or_told_to_resynchronize() -> None:
    chance = random.Random(11)
    scopes: list[dict[str, str]] = [{}, {"tenant": "red"}, {"server_id": "host-1"}]
    async with running_lab("sqlite", bookmark_seconds=0.1) as lab:
        hosts = [await lab.agent("host-1"), await lab.agent("host-2")]
        readers = [Reader(lab, chance, scopes[n % 3]) for n in range(WATCHERS)]
        journal = Journal(lab)
        tasks = [asyncio.create_task(r.read_for_ever()) for r in readers]
        tasks += [asyncio.create_task(churn(lab, hosts, chance)) for _ in range(2)]
        await disturb(lab, journal, chance, lambda: was_disturbed(lab, readers))
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await lab.heard(hosts[0])  # also whatever was under way
        await asyncio.sleep(0.2)
        await journal.keep()
        last = lab.revision
        for reader in readers:
            while reader.position < last:
                await reader.read(until=last)
            assert reader.state == seen_by(lab, reader)
            if not reader.scope:
                missed = {r: ids for r, ids in journal.vms.items() if r > reader.began}
                assert reader.heard == missed
        assert was_disturbed(lab, readers)


def was_disturbed(lab: Lab, readers: Sequence[Reader]) -> bool:
    resumes, resyncs = (sum(r.resumes for r in readers), sum(r.resyncs for r in readers))
    return resumes > 50 and resyncs > 0 and lab.revision > 200


def seen_by(lab: Lab, reader: Reader) -> dict[str, int]:
    """What a reader should have put together from all its pieces."""
    table = lab.center.ledger.table
    truth = {}
    for number in range(1, VMS + 1):
        record = table.vm(vm_id(number))
        if record is None:
            continue
        tenant, server = reader.scope.get("tenant"), reader.scope.get("server_id")
        if tenant in (None, record.vm.tenant) and server in (None, record.location.server_id):
            truth[record.vm.vm_id] = record.revision
    return truth
