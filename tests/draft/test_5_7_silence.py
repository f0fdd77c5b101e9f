"""5.7, VM Report: reports renew the lease; a silent host is not one that stopped (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2 as directory
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABORT, COPY, PREPARE, RUNNING, START, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab, running_lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import vm

PREPARING, COPYING, SWITCHING, SETTLING, _ = PHASES
LEASE_S = 6.0  # 0.3 s on the lab's quick clock


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with running_lab(lease_seconds=LEASE_S) as lab:
        yield lab


async def until_silent(lab: Lab, server_id: str) -> None:
    watch = lab.operator.directory.Watch(directory.WatchRequest(server_id=server_id))
    async for event in watch:
        if event.server.liveness == types.LIVENESS_SILENT:
            watch.cancel()
            return


async def test_reports_renew_the_lease(lab: Lab) -> None:
    host, idle = await lab.agent("host-1"), await lab.agent("host-2")
    async with host.beating():
        await until_silent(lab, "host-2")
        assert (await lab.server("host-1")).server.liveness == types.LIVENESS_ATTACHED
        await idle.until(lambda: not idle.attached)
    assert host.attached


async def test_a_silent_hosts_vms_stay_where_they_are(lab: Lab) -> None:
    silent, other = await lab.agent("host-1"), await lab.agent("host-2")
    before = (await silent.register(vm(1))).record
    async with other.beating():
        await silent.detach()
        await until_silent(lab, "host-1")
        assert await lab.record(VM) == before
        await lab.heard(other)
        assert other.vms == {}
        answer = await lab.operator.directory.ListServers(
            directory.ListServersRequest(least_used_only=True)
        )
        assert [load.server.server_id for load in answer.servers] == ["host-2"]
        with lab.nothing_changes():
            move = pb.RelocateRequest(vm_id=VM, destination="host-2")
            refusal = await refusal_of(lab.operator.signaling.Relocate(move))
            assert refusal.reason is Reason.SERVER_SILENT
            other.truth[VM] = RUNNING
            assert (await refusal_of(other.register(vm(1)))).reason is Reason.OWNER_SILENT


async def test_a_host_that_comes_back_is_attached_with_its_vms(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.detach()
    await until_silent(lab, "host-1")
    await host.attach()
    assert (await lab.server("host-1")).server.liveness == types.LIVENESS_ATTACHED
    assert host.vms[VM].owned


async def test_a_newer_session_takes_over(lab: Lab) -> None:
    first = await lab.agent("host-1")
    second = Agent(lab.client("vserver/host-1"), "host-1")
    await second.attach()
    await first.until(lambda: not first.attached)
    await second.register(vm(1))
    await second.until(lambda: VM in second.vms)
    await second.detach()


async def test_a_destination_that_falls_silent_ends_a_move_before_the_copy(lab: Lab) -> None:
    move = await Move.ready(lab)
    async with move.source.beating():
        await move.begin()
        await move.destination.detach()
        aborting = await move.source.until_ordered(VM, ABORT)
        await move.source.outcome(aborting, RUNNING)
        operation = await move.done()
    assert operation.phase == operations.PHASE_FAILED
    assert operation.failure.reason == Reason.SESSION_LOST.name
    assert await move.owner() == ("host-1", 1)


@pytest.mark.parametrize("phase", [SWITCHING, SETTLING], ids=operations.Phase.Name)
async def test_after_the_switch_silence_is_waited_out(lab: Lab, phase: int) -> None:
    move = await Move.ready(lab)
    async with move.source.beating(), move.destination.beating():
        await move.reach(phase)
    await move.source.detach()
    await move.destination.detach()
    await until_silent(lab, "host-1")
    await until_silent(lab, "host-2")
    assert (await move.get()).phase == phase
    assert await move.owner() == ("host-2", 2)
    await move.source.attach()
    await move.destination.attach()
    async with move.source.beating(), move.destination.beating():
        assert (await move.finish(phase)).phase == operations.PHASE_SUCCEEDED


async def test_a_silent_source_is_never_replaced(lab: Lab) -> None:
    move = await Move.ready(lab)
    async with move.destination.beating():
        async with move.source.beating():
            await move.reach(COPYING)
        await move.source.detach()
        await until_silent(lab, "host-1")
        assert (await move.get()).phase == COPYING
        assert await move.owner() == ("host-1", 1)
        steps = {m.vm.move.step for m in move.destination.heard if m.HasField("vm")}
        assert steps == {PREPARE} and START not in steps
        await move.source.attach()
        async with move.source.beating():
            assert (await move.finish(COPYING)).phase == operations.PHASE_SUCCEEDED


async def test_a_silent_destination_does_not_hold_up_going_back(lab: Lab) -> None:
    move = await Move.ready(lab)
    async with move.source.beating():
        async with move.destination.beating():
            await move.reach(COPYING)
            await move.cancel()
        await move.destination.detach()
        await move.source.outcome(await move.source.until_ordered(VM, ABORT), RUNNING)
        assert (await move.done()).phase == operations.PHASE_CANCELLED


async def test_after_a_restart_nobody_is_attached_until_they_say_so(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.detach()
    await lab.restart()
    assert (await lab.server("host-1")).server.liveness == types.LIVENESS_SILENT
    assert (await lab.record(VM)).location.server_id == "host-1"
    await host.attach()
    assert (await lab.server("host-1")).server.liveness == types.LIVENESS_ATTACHED


async def test_a_destination_that_stays_away_after_a_restart_ends_the_move(lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.begin()
    await move.destination.detach()
    await lab.restart()
    async with move.source.beating():
        async with asyncio.timeout(10):
            await move.source.outcome(await move.source.until_ordered(VM, ABORT), RUNNING)
        assert (await move.done()).phase == operations.PHASE_FAILED
    assert COPY not in [m.vm.move.step for m in move.source.heard]
