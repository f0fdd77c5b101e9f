"""5.5, what a move or a host leaves unknown: fences, and what may be decided after them (I7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABORT, ABSENT, COPY, HELD, RUNNING, SHUT_OFF, START, Agent
from tests.support.calls import refusal_of
from tests.support.lab import STORES, Lab, running_lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import vm, vm_id

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
FAILED, LOST = operations.PHASE_FAILED, operations.PHASE_LOST_NEEDS_FENCE
RUNS = types.VM_STATE_RUNNING


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A fence that writes down whom it switched off, and can be told to fail or to hang."""
    script = tmp_path / "fence"
    script.write_text(
        f"""#!/bin/sh
[ -e {tmp_path}/hang ] && sleep 60
[ -e {tmp_path}/fail ] && {{ echo "no such outlet"; exit 3; }}
echo "$1 $2" >> {tmp_path}/off
"""
    )
    script.chmod(0o755)
    return script


@pytest.fixture(params=STORES)
async def lab(request: pytest.FixtureRequest, device: Path) -> AsyncIterator[Lab]:
    command = (str(device), "{server_id}", "{management_address}")
    fence = {"command": command, "timeout_seconds": 3.0}
    async with running_lab(request.param, lease_seconds=24.0, fence=fence) as lab:
        yield lab


async def silenced(lab: Lab, agent: Agent) -> None:
    """Its connection is cut, and its lease runs out."""
    await agent.detach()
    while (await lab.server(agent.server_id)).server.liveness != types.LIVENESS_SILENT:
        pass


async def fence(lab: Lab, server_id: str = "host-1", word: str = "") -> operations.Operation:
    request = operations.FenceRequest(server_id=server_id, word=word)
    begun = await lab.operator.operations.Fence(request)
    wait = operations.WaitOperationRequest(operation_id=begun.operation_id)
    wait.timeout.FromSeconds(60)  # of the lab's clock: a device is a process, and takes real time
    while not (done := await lab.operator.operations.Wait(wait)).HasField("ended_at"):
        pass
    return done


async def settle(lab: Lab, server_id: str = "", vm: str = VM) -> operations.SettleResponse:
    request = operations.SettleRequest(vm_id=vm, server_id=server_id)
    return await lab.operator.operations.Settle(request)


async def refused(lab: Lab, server_id: str = "") -> Reason:
    with lab.nothing_changes():
        return (await refusal_of(settle(lab, server_id))).reason


async def two(lab: Lab) -> tuple[Agent, Agent]:
    source, other = await lab.agent("host-1"), await lab.agent("host-2")
    await source.register(vm(1))
    return source, other


# ---- a host that is silent ----


async def test_a_silent_hosts_vms_are_started_elsewhere_only_after_a_fence(
    lab: Lab, device: Path
) -> None:
    source, other = await two(lab)
    async with other.beating():
        await silenced(lab, source)
        assert await refused(lab, "host-2") is Reason.NEEDS_FENCE
        started = await refusal_of(other.register(vm(1)))
        assert started.reason is Reason.OWNER_SILENT
        done = await fence(lab)
        assert (done.phase, done.kind, done.subject) == (SUCCEEDED, "fence", "host-1")
        assert done.requested_by == "operator/alice" and not done.HasField("parts")
        assert (device.parent / "off").read_text() == "host-1 192.0.2.1\n"
        assert (await lab.server("host-1")).server.HasField("fenced_at")
        settled = await settle(lab, "host-2")
        assert (settled.server_id, settled.epoch) == ("host-2", 2)
        location = (await lab.record(VM)).location
        assert location == types.Location(
            server_id="host-2", state=types.VM_STATE_SHUT_OFF, epoch=2
        )
        assert (await other.register(vm(1))).record.location.state == RUNS
        await source.attach()
        assert not (await lab.server("host-1")).server.HasField("fenced_at")
        late = await refusal_of(source.register(vm(1), epoch=1))
        assert late.reason is Reason.STALE_EPOCH


async def test_a_word_is_believed_and_logged(lab: Lab) -> None:
    source, other = await two(lab)
    async with other.beating():
        attached = await refusal_of(fence(lab, word="I saw it"))
        assert attached.reason is Reason.SERVER_ATTACHED
        await silenced(lab, source)
        done = await fence(lab, word="pulled both plugs")
        assert done.phase == SUCCEEDED
        (alert,) = await lab.alerts("FENCED_BY_WORD")
        assert "operator/alice" in alert.message and "pulled both plugs" in alert.message
        assert (await settle(lab)).server_id == ""
        assert (await refusal_of(lab.record(VM))).reason is Reason.UNKNOWN_VM
        again = await other.register(vm(1))
        assert again.record.location.epoch > 2, "the epoch never goes back"


@pytest.mark.parametrize(("how", "said"), [("fail", "no such outlet"), ("hang", "unknown")])
async def test_what_a_device_does_not_say_is_not_fenced(
    lab: Lab, device: Path, how: str, said: str
) -> None:
    source, other = await two(lab)
    async with other.beating():
        await silenced(lab, source)
        (device.parent / how).touch()
        done = await fence(lab)
        assert (done.phase, done.failure.reason) == (FAILED, "FENCE_FAILED")
        assert said in done.failure.message
        assert await refused(lab, "host-2") is Reason.NEEDS_FENCE
        (device.parent / how).unlink()
        assert (await fence(lab)).phase == SUCCEEDED


async def test_a_fence_goes_on_when_the_vcenter_comes_back(lab: Lab, device: Path) -> None:
    source, _ = await two(lab)
    await silenced(lab, source)
    (device.parent / "hang").touch()
    request = operations.FenceRequest(server_id="host-1")
    begun = await lab.operator.operations.Fence(request)
    assert (await lab.operator.operations.Fence(request)).operation_id == begun.operation_id
    await lab.stop()
    (device.parent / "hang").unlink()
    await lab.start()
    wait = operations.WaitOperationRequest(operation_id=begun.operation_id)
    assert (await lab.operator.operations.Wait(wait)).phase == SUCCEEDED


async def test_a_vm_whose_host_is_there_is_not_settled(lab: Lab) -> None:
    await two(lab)
    assert await refused(lab, "host-2") is Reason.NOT_LOST
    assert await refused(lab) is Reason.NOT_LOST


# ---- a VM that is lost ----


async def test_a_lost_vm_is_settled_when_both_hosts_say_that_it_is_not_there(lab: Lab) -> None:
    source, other = await two(lab)
    async with source.beating(), other.beating():
        move = Move(lab, source, other)
        await move.reach(SWITCHING)
        starting = await other.until_ordered(VM, START)
        await other.outcome(starting, ABSENT, ok=False)
        assert (await move.done()).phase == LOST
        source.truth[VM] = RUNNING
        assert await refused(lab, "host-2") is Reason.RUNNING_IN_TWO_PLACES
        source.truth[VM] = None
        assert await refused(lab, "host-2") is Reason.NEEDS_FENCE
        source.truth[VM] = ABSENT
        settled = await settle(lab, "host-1")
        assert (settled.server_id, settled.epoch) == ("host-1", 3)
        assert (await source.register(vm(1))).record.location.state == RUNS


@pytest.mark.parametrize("phase", [PREPARING, COPYING, SWITCHING])
async def test_a_move_whose_source_is_fenced_ends_with_the_decision(lab: Lab, phase: int) -> None:
    source, other = await two(lab)
    async with other.beating():
        move = Move(lab, source, other)
        await move.reach(phase)
        await silenced(lab, source)
        if phase == SWITCHING:
            assert await refused(lab, "host-2") is Reason.NOT_LOST
            return
        assert await refused(lab, "host-2") is Reason.NEEDS_FENCE
        await fence(lab)
        assert (await settle(lab, "host-2")).epoch == 2
        assert ((await move.done()).phase, (await move.get()).failure.reason) == (
            FAILED,
            "NEEDS_FENCE",
        )
        await other.until(lambda: other.vms[VM].owned and not other.vms[VM].move.step)


async def test_a_source_that_holds_the_guest_runs_it_when_its_destination_is_fenced(
    lab: Lab,
) -> None:
    """What it holds is the guest with its memory: nobody has to start it anew."""
    source, other = await two(lab)
    async with source.beating(), other.beating():
        move = Move(lab, source, other)
        await move.begin()
        await move.prepare()
        copying = await source.until_ordered(VM, COPY)
        await source.outcome(copying, HELD)
        await move.until(SWITCHING)
        source.truth[VM] = HELD
        assert await refused(lab, "host-1") is Reason.NOT_LOST
        await silenced(lab, other)
        assert await refused(lab, "host-1") is Reason.NEEDS_FENCE
        await fence(lab, "host-2")
        settled = await settle(lab, "host-1")
        assert (settled.server_id, settled.epoch) == ("host-1", 3)
        starting = await source.until_ordered(VM, START)
        assert starting.owned and starting.move.epoch == 3
        await source.outcome(starting, RUNNING, policy_hash=starting.profile_hash)
        ended = await move.done()
        assert (ended.phase, ended.failure.reason) == (FAILED, "NEEDS_FENCE")
        assert await move.owner() == ("host-1", 3)
        assert (await lab.record(VM)).location.state == RUNS


async def test_what_the_source_does_not_hold_any_more_is_only_its_own_again(lab: Lab) -> None:
    source, other = await two(lab)
    async with source.beating(), other.beating():
        move = Move(lab, source, other)
        await move.begin()
        await move.prepare()
        copying = await source.until_ordered(VM, COPY)
        await source.outcome(copying, HELD)
        await move.until(SWITCHING)
        await silenced(lab, other)
        await fence(lab, "host-2")
        source.truth[VM] = ABSENT
        assert (await settle(lab, "host-1")).epoch == 3
        assert (await move.done()).phase == FAILED
        assert (await lab.record(VM)).location.state == types.VM_STATE_SHUT_OFF


# ---- a guest that shuts itself down ----


async def test_a_guest_that_shuts_down_in_mid_move_stays_where_it_was(lab: Lab) -> None:
    source, other = await two(lab)
    async with source.beating(), other.beating():
        move = Move(lab, source, other)
        await move.reach(COPYING)
        copying = await source.until_ordered(VM, COPY)
        failure = operations.Failure(reason="NOT_RUNNING", message="its guest has shut down")
        await source.outcome(copying, SHUT_OFF, ok=False, failure=failure)
        aborting = await source.until_ordered(VM, ABORT)
        await source.outcome(aborting, SHUT_OFF)
        cleaning = await other.until_ordered(VM, 4)
        await other.outcome(cleaning, ABSENT)
        ended = await move.done()
        assert (ended.phase, ended.failure.reason) == (FAILED, "NOT_RUNNING")
        assert await move.owner() == ("host-1", 1)
        await source.register(vm(1), types.VM_STATE_SHUT_OFF, epoch=1)
        assert (await lab.record(VM)).location.state == types.VM_STATE_SHUT_OFF


async def test_what_nobody_knows_of_cannot_be_fenced_or_settled(lab: Lab) -> None:
    await two(lab)
    with lab.nothing_changes():
        assert (await refusal_of(fence(lab, "host-9"))).reason is Reason.UNKNOWN_SERVER
        assert (await refusal_of(settle(lab, vm=vm_id(9)))).reason is Reason.UNKNOWN_VM
        long = fence(lab, word="x" * 501)
        assert (await refusal_of(long)).reason is Reason.INVALID_FIELD
