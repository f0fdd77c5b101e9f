"""5.6, VM Replication (A18): a standby, kept in step while the original runs, and promoted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import (
    ABORT,
    ABSENT,
    CLEAN,
    COPY,
    MIRROR,
    PREPARE,
    RUNNING,
    SHUT_OFF,
    START,
    UNKNOWN,
)
from tests.support.calls import refusal_of
from tests.support.lab import Lab, running_lab
from tests.support.moving import VM, Move
from tests.support.nouns import vm, vm_id

ROOT = types.Disk(path="/images/root.qcow2", format="qcow2", bytes=1 << 30, used_bytes=1 << 29)
MIRRORING, SUCCEEDED = operations.PHASE_MIRRORING, operations.PHASE_SUCCEEDED
FAILED, CANCELLED = operations.PHASE_FAILED, operations.PHASE_CANCELLED
PORT, DEFINITION = 10_809, b"<domain/>"


@pytest.fixture
async def standby(lab: Lab) -> Move:
    return await ready(lab)


@pytest.fixture
async def watched() -> AsyncIterator[Move]:
    """The same, where a host that says nothing is silent after two seconds."""
    async with running_lab(lease_seconds=40.0) as lab:
        move = await ready(lab)
        async with move.source.beating(), move.destination.beating():
            yield move


async def ready(lab: Lab) -> Move:
    """VM 1, with a disk, on host-1; host-2 is where its standby goes."""
    source, destination = await lab.agent("host-1"), await lab.agent("host-2")
    await source.register(vm(1))
    status = pb.VmStatus(vm_id=VM, epoch=1, state=types.VM_STATE_RUNNING)
    status.disks.disks.append(ROOT)
    await source.report(status)
    source.truth[VM] = RUNNING
    return Move(lab, source, destination)


async def begin(standby: Move, **rest: bool) -> pb.ReplicateResponse:
    request = pb.ReplicateRequest(vm_id=VM, near="host-2", standby=True, **rest)
    reply = await standby.lab.operator.signaling.Replicate(request)
    standby.id = reply.operation.operation_id
    return reply


async def take(standby: Move, port: int = PORT) -> session.WantedVm:
    wanted = await standby.destination.until_ordered(VM, PREPARE)
    await standby.destination.outcome(wanted, ABSENT, port=port)
    return wanted


async def copy(standby: Move) -> session.WantedVm:
    wanted = await standby.source.until_ordered(VM, COPY)
    await standby.source.outcome(wanted, RUNNING, definition=DEFINITION, bytes=ROOT.bytes)
    return wanted


async def in_step(standby: Move) -> operations.Operation:
    await begin(standby)
    await take(standby)
    await copy(standby)
    return await standby.until(MIRRORING)


async def promote(standby: Move) -> operations.Operation:
    request = operations.PromoteRequest(vm_id=VM)
    return await standby.lab.operator.operations.Promote(request)


async def silence(standby: Move) -> None:
    await standby.source.detach()
    while (await standby.lab.server("host-1")).server.liveness != types.LIVENESS_SILENT:
        pass


async def silence_and_fence(standby: Move) -> None:
    """The original's host falls silent, and a person pulls its plug."""
    await silence(standby)
    request = operations.FenceRequest(server_id="host-1", word="pulled the plug")
    await standby.lab.operator.operations.Fence(request)


async def test_the_disks_are_mirrored_while_the_original_runs(standby: Move) -> None:
    begun = (await begin(standby)).operation
    assert (begun.kind, begun.move_kind) == ("standby", operations.MOVE_KIND_STANDBY)
    assert (begun.source, begun.destination, list(begun.disks)) == ("host-1", "host-2", [ROOT])
    assert list((await take(standby)).move.disks) == [ROOT]
    order = (await copy(standby)).move
    assert (order.port, list(order.disks), order.kind) == (PORT, [ROOT], begun.move_kind)
    await standby.until(MIRRORING)
    assert (await standby.source.until_ordered(VM, MIRROR)).owned
    wanted = await standby.destination.until_ordered(VM, MIRROR)
    assert (wanted.owned, wanted.ports) == (False, session.PORT_STATE_CLOSED)


async def test_it_holds_nothing_of_the_identity_while_the_original_lives(standby: Move) -> None:
    """The VM's entry is as if there were no standby: its state is told, its addresses are its own,
    and nobody floods its frames to the standby's host."""
    before = await standby.lab.record(VM)
    await in_step(standby)
    assert await standby.lab.record(VM) == before
    ends = standby.source.networks[before.vm.interfaces[0].vni].vtep_addresses
    assert standby.destination.server.vtep_address not in ends
    off = pb.VmStatus(vm_id=VM, epoch=1, state=types.VM_STATE_SHUT_OFF)
    await standby.source.report(off)
    assert (await standby.lab.record(VM)).location.state == types.VM_STATE_SHUT_OFF
    refusal = await refusal_of(standby.destination.deregister(VM, 1))
    assert refusal.reason is Reason.NOT_OWNER


async def test_state_and_lag_are_shown(standby: Move) -> None:
    await in_step(standby)
    for missing in (0, 4096):
        told = operations.Progress(
            bytes_total=ROOT.bytes,
            bytes_processed=ROOT.bytes - missing,
            bytes_remaining=missing,
        )
        progress = session.MoveProgress(operation_id=standby.id, progress=told)
        await standby.source.say(progress=progress)
        request = operations.GetOperationRequest(operation_id=standby.id)
        async for seen in standby.lab.operator.operations.Follow(request):
            if seen.progress.bytes_remaining == missing and seen.progress.bytes_total:
                break
        assert seen.progress.HasField("in_step_at"), "also while it lacks something: since when"
    assert not seen.HasField("standby"), "a definition is its hosts' affair"


async def test_it_is_not_promoted_while_the_original_could_run(watched: Move) -> None:
    await in_step(watched)
    for truth, reason in ((RUNNING, Reason.RUNNING_IN_TWO_PLACES), (UNKNOWN, Reason.NEEDS_FENCE)):
        watched.source.truth[VM] = truth
        assert (await refusal_of(promote(watched))).reason is reason
    await silence(watched)
    assert (await refusal_of(promote(watched))).reason is Reason.NEEDS_FENCE
    assert await watched.owner() == ("host-1", 1)
    assert watched.destination.vms[VM].move.step == MIRROR


async def test_it_is_not_promoted_beside_one_that_somebody_started_elsewhere(watched: Move) -> None:
    """Its host had gone silent before it could say that the VM was moved by hand."""
    await in_step(watched)
    third = await watched.lab.agent("host-3")
    async with third.beating():
        await silence_and_fence(watched)
        third.truth[VM] = RUNNING
        await third.report(pb.VmStatus(vm_id=VM, state=types.VM_STATE_RUNNING))
        assert (await refusal_of(promote(watched))).reason is Reason.RUNNING_IN_TWO_PLACES
        third.truth[VM] = ABSENT
        assert (await promote(watched)).phase == operations.PHASE_SWITCHING


async def test_it_is_not_promoted_beside_one_of_which_nobody_has_told_yet(watched: Move) -> None:
    """Who has just attached has not reported: perhaps it is the vCenter that has just started."""
    await in_step(watched)
    await silence_and_fence(watched)
    third = await watched.lab.agent("host-3")
    third.truth[VM] = RUNNING
    assert (await refusal_of(promote(watched))).reason is Reason.RUNNING_IN_TWO_PLACES
    third.truth[VM] = UNKNOWN  # it has never claimed to have it
    assert (await promote(watched)).phase == operations.PHASE_SWITCHING


async def test_once_its_host_is_fenced_it_is_promoted(watched: Move) -> None:
    await in_step(watched)
    await silence_and_fence(watched)
    promoted = await promote(watched)
    assert (promoted.phase, promoted.epoch_after) == (operations.PHASE_SWITCHING, 2)
    assert await watched.owner() == ("host-2", 2)
    wanted = await watched.destination.until_ordered(VM, START)
    assert (wanted.move.definition, wanted.owned) == (DEFINITION, True)
    assert (await promote(watched)).operation_id == watched.id, "asked twice, it is one"
    await watched.destination.outcome(wanted, RUNNING, policy_hash=wanted.profile_hash)
    done = await watched.done()
    assert done.phase == SUCCEEDED
    record = await watched.lab.record(VM)
    assert record.location.state == types.VM_STATE_RUNNING
    await watched.source.attach()
    assert VM not in watched.source.vms, "what is left there is a person's to remove"


@pytest.mark.parametrize("truth", [ABSENT, SHUT_OFF])
async def test_it_is_promoted_where_the_vm_is_known_to_be_off(standby: Move, truth: int) -> None:
    await in_step(standby)
    standby.source.truth[VM] = truth
    await promote(standby)
    wanted = await standby.destination.until_ordered(VM, START)
    await standby.destination.outcome(wanted, RUNNING)
    assert (await standby.done()).phase == SUCCEEDED
    assert await standby.owner() == ("host-2", 2)


async def test_one_that_would_not_run_is_its_new_hosts_and_off(standby: Move) -> None:
    await in_step(standby)
    standby.source.truth[VM] = ABSENT
    await promote(standby)
    wanted = await standby.destination.until_ordered(VM, START)
    failure = operations.Failure(reason="WOULD_NOT_START", message="no such bridge")
    await standby.destination.outcome(wanted, SHUT_OFF, ok=False, failure=failure)
    done = await standby.done()
    assert (done.phase, done.failure.reason) == (FAILED, "WOULD_NOT_START")
    assert (await standby.lab.record(VM)).location.state == types.VM_STATE_SHUT_OFF
    assert await standby.owner() == ("host-2", 2)


async def test_one_that_has_left_its_new_host_is_lost_until_it_shows_up(standby: Move) -> None:
    """It was started, moved away by hand, and then its host forgot that it had started it."""
    await in_step(standby)
    third = await standby.lab.agent("host-3")
    standby.source.truth[VM] = ABSENT
    await promote(standby)
    wanted = await standby.destination.until_ordered(VM, START)
    failure = operations.Failure(reason="NO_STANDBY", message="it has left")
    await standby.destination.outcome(wanted, ABSENT, ok=False, failure=failure)
    assert (await standby.done()).phase == operations.PHASE_LOST_NEEDS_FENCE
    standby.destination.truth[VM], third.truth[VM] = ABSENT, RUNNING
    await third.register(vm(1))
    assert await standby.owner() == ("host-3", 3)


async def test_without_one_that_is_in_step_nothing_is_promoted(standby: Move) -> None:
    standby.source.truth[VM] = ABSENT
    assert (await refusal_of(promote(standby))).reason is Reason.NO_STANDBY
    await begin(standby)
    await take(standby)
    assert (await refusal_of(promote(standby))).reason is Reason.NO_STANDBY


async def test_one_that_fell_out_of_step_is_copied_anew(standby: Move) -> None:
    await in_step(standby)
    wanted = await standby.source.until_ordered(VM, MIRROR)
    failure = operations.Failure(reason="COPY_FAILED", message="connection reset")
    await standby.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await take(standby, port=PORT + 1)
    assert (await refusal_of(promote(standby))).reason is Reason.NO_STANDBY
    assert (await standby.get()).failure.reason == "COPY_FAILED", "why it is copied"
    assert (await copy(standby)).move.port == PORT + 1
    again = await standby.until(MIRRORING)
    assert not again.HasField("failure")


async def test_what_cannot_be_copied_ends_with_a_reason_and_an_alert(standby: Move) -> None:
    await begin(standby)
    await take(standby)
    wanted = await standby.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="COPY_FAILED", message="no route to host")
    await standby.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await standby.go_back()
    done = await standby.done()
    assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED")
    alerts = await standby.lab.alerts()
    assert [a.vm_id for a in alerts if a.reason == "STANDBY_LOST"] == [VM]


async def test_it_is_ended_by_cancelling_it(standby: Move) -> None:
    await in_step(standby)
    await standby.cancel()
    await standby.destination.outcome(await standby.destination.until_ordered(VM, CLEAN), ABSENT)
    assert (await standby.get()).phase == operations.PHASE_ABORTING, "the source still mirrors"
    await standby.source.outcome(await standby.source.until_ordered(VM, ABORT), RUNNING)
    assert (await standby.done()).phase == CANCELLED
    await standby.destination.until_gone(VM)
    assert not await standby.lab.alerts()
    assert await standby.owner() == ("host-1", 1)


async def test_a_host_that_is_not_there_holds_up_no_end(watched: Move) -> None:
    await in_step(watched)
    await silence_and_fence(watched)
    await watched.cancel()
    await watched.destination.outcome(await watched.destination.until_ordered(VM, CLEAN), ABSENT)
    assert (await watched.done()).phase == CANCELLED


async def test_a_vm_has_one_standby_and_is_not_moved_past_it(standby: Move) -> None:
    await in_step(standby)
    move = pb.RelocateRequest(vm_id=VM, destination="host-2")
    refusal = await refusal_of(standby.lab.operator.signaling.Relocate(move))
    assert refusal.reason is Reason.ALREADY_MOVING and standby.id in refusal.message
    drain = pb.RelocateRequest(server_id="host-1")
    refusal = await refusal_of(standby.lab.operator.signaling.Relocate(drain))
    assert refusal.reason is Reason.ALREADY_MOVING, "a host is not drained of all but this one"
    assert (await refusal_of(begin(standby))).reason is Reason.ALREADY_MOVING


async def test_with_its_vm_it_goes(standby: Move) -> None:
    await in_step(standby)
    await standby.source.deregister(VM, 1)
    assert (await standby.done()).failure.reason == "UNKNOWN_VM"
    await standby.destination.until_gone(VM)


async def test_one_whose_vm_was_moved_by_hand_ends(standby: Move) -> None:
    await in_step(standby)
    third = await standby.lab.agent("host-3")
    standby.source.truth[VM], third.truth[VM] = ABSENT, RUNNING
    await third.register(vm(1))
    assert (await standby.lab.record(VM)).location.epoch == 2
    assert (await standby.done()).failure.reason == "NOT_OWNER"
    await standby.destination.until_gone(VM)


async def test_both_hosts_must_be_able_to(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await lab.agent("host-2", keeps_standbys=False)
    await source.register(vm(1))
    request = pb.ReplicateRequest(vm_id=vm_id(1), near="host-2", standby=True, plan_only=True)
    planned = await lab.operator.signaling.Replicate(request)
    assert "INCOMPATIBLE_HOST" in {o.reason for o in planned.objections}


async def test_a_vcenter_that_restarts_goes_on_with_it(standby: Move) -> None:
    await in_step(standby)
    await standby.lab.restart()
    assert standby.destination.vms[VM].move.step == MIRROR
    standby.source.truth[VM] = ABSENT
    await promote(standby)
    assert (await standby.destination.until_ordered(VM, START)).move.definition == DEFINITION
