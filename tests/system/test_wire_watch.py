"""Directory.Watch over a real connection: ordered, gap-free, resumable, or told otherwise (I4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import RUNNING
from tests.support.calls import refusal_of
from tests.support.lab import STORES, Lab, running_lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import vm, vm_id


@pytest.fixture(params=STORES)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with running_lab(request.param) as lab:
        yield lab


class Watcher:
    """Reads events until a condition holds; keeps them all."""

    def __init__(self, lab: Lab, **request: Any) -> None:
        self._call = lab.client("operator/nve-1/view").directory.Watch(pb.WatchRequest(**request))
        self.events: list[pb.WatchEvent] = []

    async def until(self, kind: str, **fields: Any) -> pb.WatchEvent:
        async for event in self._call:
            self.events.append(event)
            if event.WhichOneof("change") == kind:
                return event
        raise AssertionError(f"the stream ended without {kind}")

    def kinds(self) -> list[str]:
        return [event.WhichOneof("change") or "" for event in self.events]

    def stop(self) -> None:
        self._call.cancel()


async def test_a_snapshot_then_a_bookmark_then_every_change(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    watcher = Watcher(lab)
    bookmark = await watcher.until("bookmark")
    assert watcher.kinds() == ["server", "vm", "bookmark"]
    assert [event.snapshot for event in watcher.events] == [True, True, False]
    assert bookmark.revision == lab.revision
    await host.register(vm(2))
    event = await watcher.until("vm")
    assert event.vm == await lab.record(vm_id(2))
    assert event.revision == lab.revision and not event.snapshot
    await host.deregister(VM, 1)
    assert (await watcher.until("vm_gone")).vm_gone == VM
    watcher.stop()


async def test_it_resumes_from_a_revision_without_a_gap(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    seen = lab.revision
    for number in (2, 3, 4):
        await host.register(vm(number))
    watcher = Watcher(lab, from_revision=seen)
    await watcher.until("bookmark")
    changes = [(e.revision, e.vm.vm.vm_id) for e in watcher.events if e.HasField("vm")]
    assert changes == [(seen + n, vm_id(n + 1)) for n in (1, 2, 3)]
    await host.register(vm(5))
    assert (await watcher.until("vm")).revision == seen + 4
    watcher.stop()


async def test_one_that_is_up_to_date_gets_only_what_comes(lab: Lab) -> None:
    host = await lab.agent("host-1")
    watcher = Watcher(lab, from_revision=lab.revision)
    await watcher.until("bookmark")
    await host.register(vm(1))
    await watcher.until("vm")
    assert watcher.kinds() == ["bookmark", "vm"]
    watcher.stop()


async def test_one_that_cannot_resume_is_told_so(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    ahead = Watcher(lab, from_revision=lab.revision + 5)
    assert (await ahead.until("resync")).resync
    before = lab.revision
    await lab.store.compact(2**60)
    await lab.restart()
    late = Watcher(lab, from_revision=before - 1)
    resync = await late.until("resync")
    assert resync.revision == lab.revision and "not kept" in resync.resync
    assert late.kinds() == ["resync"]


async def test_it_resumes_across_restarts_from_any_revision_that_is_kept(lab: Lab) -> None:
    host = await lab.agent("host-1")
    for number in range(1, 6):
        await host.register(vm(number))
    whole = Watcher(lab, from_revision=1)
    await whole.until("bookmark")
    last, heard = lab.revision, [(e.revision, e.WhichOneof("change")) for e in whole.events[:-1]]
    await lab.restart()
    for after in (1, 2, last - 3, last - 1, last):
        again = Watcher(lab, from_revision=after)
        await again.until("bookmark")
        told = [(e.revision, e.WhichOneof("change")) for e in again.events if e.revision <= last]
        assert told == [h for h in heard if h[0] > after]
        before = lab.revision
        await host.register(vm(after + 20))
        event = await again.until("vm")
        assert event.revision == before + 1 and event.vm.vm.vm_id == vm_id(after + 20)
        again.stop()


@pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted"])
async def test_it_hears_after_a_restart_what_left_its_scope_meanwhile(
    lab: Lab, compacted: bool
) -> None:
    """Also if the VM had entered it long before history begins. Others are none of its business."""
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    for number in (1, 2, 3):
        await old.register(vm(number))
    await new.register(vm(4))
    seen = lab.revision
    if compacted:
        assert await lab.store.compact(2**60) == seen
    new.truth[VM] = RUNNING
    await new.register(vm(1))
    await old.deregister(vm_id(2), 1)
    await new.deregister(vm_id(4), 1)
    await lab.restart()
    watcher = Watcher(lab, from_revision=seen, server_id="host-1")
    await watcher.until("bookmark")
    assert [e.vm_gone for e in watcher.events if e.HasField("vm_gone")] == [VM, vm_id(2)]
    assert not [e for e in watcher.events if e.HasField("vm")]
    watcher.stop()


async def test_one_that_hears_of_no_change_is_told_how_far_it_is() -> None:
    async with running_lab(bookmark_seconds=0.05) as lab:
        host = await lab.agent("host-1")
        watcher = Watcher(lab, tenant="red")
        await watcher.until("bookmark")
        await host.register(vm(1))
        while (await watcher.until("bookmark")).revision < lab.revision:
            pass
        assert set(watcher.kinds()) == {"bookmark"}
        watcher.stop()


@pytest.mark.parametrize(
    ("scope", "numbers"),
    [
        ({"vm_id": VM}, [1]),
        ({"tenant": "red"}, [2]),
        ({"network": "blue-net"}, [1, 3]),
        ({"server_id": "host-2"}, [3]),
        ({}, [1, 2, 3]),
    ],
    ids=str,
)
async def test_a_scope_narrows_it(lab: Lab, scope: dict[str, str], numbers: list[int]) -> None:
    one, two = await lab.agent("host-1"), await lab.agent("host-2")
    await one.register(vm(1))
    await one.register(vm(2, tenant="red"))
    await two.register(vm(3))
    watcher = Watcher(lab, **scope)
    await watcher.until("bookmark")
    found = [e.vm.vm.vm_id for e in watcher.events if e.HasField("vm")]
    assert found == [vm_id(n) for n in numbers]
    watcher.stop()


async def test_a_vm_that_leaves_the_scope_is_gone(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    watcher = Watcher(lab, server_id="host-1")
    await watcher.until("bookmark")
    new.truth[VM] = RUNNING
    await new.register(vm(1))
    assert (await watcher.until("vm_gone")).vm_gone == VM
    watcher.stop()


async def test_a_move_is_watched_from_end_to_end(lab: Lab) -> None:
    move = await Move.ready(lab)
    watcher = Watcher(lab, vm_id=VM)
    await watcher.until("bookmark")
    await move.begin()
    await move.finish(PHASES[0])
    while not (await watcher.until("operation")).operation.done:
        pass
    epochs = [e.vm.location.epoch for e in watcher.events if e.HasField("vm")]
    assert epochs == sorted(epochs) and epochs[-1] == 2
    revisions = [event.revision for event in watcher.events]
    assert revisions == sorted(revisions)
    watcher.stop()


async def test_alerts_are_watched(lab: Lab) -> None:
    host, thief = await lab.agent("host-1"), await lab.agent("host-2")
    await host.register(vm(1))
    watcher = Watcher(lab)
    await watcher.until("bookmark")
    stolen = vm(2)
    stolen.interfaces[0].CopyFrom(vm(1).interfaces[0])
    await refusal_of(thief.register(stolen))
    alert = (await watcher.until("alert")).alert
    assert (alert.reason, alert.severity) == ("CLAIM_HELD", types.SEVERITY_CRITICAL)
    watcher.stop()
