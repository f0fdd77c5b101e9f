"""What was: where a VM or an address was at a time, what became of a VM, and for how long (A12)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from common.codec.times import to_timestamp
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import RUNNING
from tests.support.calls import refusal_of
from tests.support.lab import STORES, Lab, running_lab
from tests.support.moving import VM
from tests.support.nouns import by_id, by_ip, by_mac, interface, vm, vm_id
from vcenter.ctl.main import run


@pytest.fixture(params=STORES)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with running_lab(request.param) as lab:
        yield lab


async def now() -> int:
    """A moment with nothing in the same millisecond before or after it."""
    await asyncio.sleep(0.003)
    moment = time.time_ns() // 1_000_000
    await asyncio.sleep(0.003)
    return moment


async def was(lab: Lab, key: types.VmKey, at: int) -> pb.WhereWasResponse:
    request = pb.WhereWasRequest(key=key, at=to_timestamp(at))
    return await lab.operator.directory.WhereWas(request)


async def place(lab: Lab, key: types.VmKey, at: int) -> tuple[str, str] | None:
    answer = await was(lab, key, at)
    assert answer.at == to_timestamp(at)
    record = answer.record
    return (record.vm.vm_id, record.location.server_id) if answer.found else None


@pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted"])
async def test_an_address_is_found_where_it_was_even_if_another_had_it(
    lab: Lab, compacted: bool
) -> None:
    one, two = await lab.agent("host-1"), await lab.agent("host-2")
    before = await now()
    await one.register(vm(1))
    await one.register(vm(50, interfaces=[interface(5)]))
    if compacted:
        await lab.store.compact(2**60)
    first = await now()
    two.truth[VM] = RUNNING
    await two.register(vm(1))
    second = await now()
    await two.deregister(VM, 2)
    nobody = await now()
    await one.register(vm(2, interfaces=[interface(1)]))
    other = await now()
    await one.register(vm(2, interfaces=[interface(7)]))
    await two.register(vm(1), epoch=0)
    back = await now()
    for _ in range(2):
        for key in (by_ip(1), by_mac(1)):
            assert await place(lab, key, first) == (VM, "host-1")
            assert await place(lab, key, second) == (VM, "host-2")
            assert await place(lab, key, nobody) is None
            assert await place(lab, key, other) == (vm_id(2), "host-1")
            assert await place(lab, key, back) == (VM, "host-2")
        assert await place(lab, by_id(1), other) is None
        assert await place(lab, by_id(2), other) == (vm_id(2), "host-1")
        assert await place(lab, by_ip(1, vni=200), first) is None
        assert (await was(lab, by_id(1), 2**41)).record.location.server_id == "host-2"
        await lab.restart()
    if compacted:
        refusal = await refusal_of(was(lab, by_ip(1), before - 10_000))
        assert refusal.reason is Reason.HISTORY_NOT_KEPT and "kept from" in refusal.message
    else:
        assert await place(lab, by_ip(1), before) is None


async def test_what_became_of_a_vm(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.register(vm(1, name="new"))
    await host.deregister(VM, 1)
    request = pb.VmHistoryRequest(vm_id=VM)
    answer = await lab.operator.directory.VmHistory(request)
    assert [entry.HasField("record") for entry in answer.entries] == [False, True, True]
    assert [entry.record.vm.name for entry in answer.entries] == ["", "new", "vm-1"]
    revisions = [entry.revision for entry in answer.entries]
    assert revisions == sorted(revisions, reverse=True) and not answer.HasField("kept_since")
    assert all(e.at.seconds for e in answer.entries)
    limited = await lab.operator.directory.VmHistory(pb.VmHistoryRequest(vm_id=VM, limit=1))
    assert list(limited.entries) == [answer.entries[0]]
    unknown = lab.operator.directory.VmHistory(pb.VmHistoryRequest(vm_id=vm_id(99)))
    assert (await refusal_of(unknown)).reason is Reason.UNKNOWN_VM


async def test_history_is_kept_for_the_configured_time_only() -> None:
    """In the background, while the vCenter serves."""
    async with running_lab("sqlite", history_hours=0.0) as lab:
        host = await lab.agent("host-1")
        await host.register(vm(1))
        await host.register(vm(1, name="new"))
        async with asyncio.timeout(15):  # a round is 3 s by the quick clock
            while not (kept := await history(lab)).HasField("kept_since"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert [entry.record.vm.name for entry in kept.entries] == ["new"]
        assert await place(lab, by_id(1), await now()) == (VM, "host-1")


async def history(lab: Lab) -> pb.VmHistoryResponse:
    return await lab.operator.directory.VmHistory(pb.VmHistoryRequest(vm_id=VM))


async def test_vctl_tells_it(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await asyncio.sleep(1.2)
    server = ("--server", f"unix:{lab.folder}/vcenter.sock", "--as", "operator/alice")
    for arguments, code, says in (
        (("where", VM, "--at", "1s"), 0, "host-1"),
        (("where", "100/10.0.0.1", "--at", "2100-01-01"), 0, "host-1"),
        (("where", VM, "--at", "1h"), 3, "not there at"),
        (("where", VM, "--at", "noon"), 2, "is no time"),
        (("history", VM), 0, "running"),
    ):
        assert await asyncio.to_thread(run, ["vm", *arguments, *server]) == code
        told = capsys.readouterr()
        assert says in told.out + told.err
