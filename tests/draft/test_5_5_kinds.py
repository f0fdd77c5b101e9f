"""5.5, VM Relocation (A22): kinds of moves, as the vCenter and its hosts speak of them."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABORT, ABSENT, CLEAN, COPY, PREPARE, RUNNING, SHUT_OFF, START
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import vm, vm_id

LIVE, SUSPEND = operations.MOVE_KIND_LIVE, operations.MOVE_KIND_SUSPEND
COLD, RESTART = operations.MOVE_KIND_COLD, operations.MOVE_KIND_RESTART
FAILED = operations.PHASE_FAILED
OFF, ON = types.VM_STATE_SHUT_OFF, types.VM_STATE_RUNNING


async def begin(move: Move, kind: int) -> operations.Operation:
    request = pb.RelocateRequest(vm_id=VM, destination="host-2", kind=kind)
    reply = await move.lab.operator.signaling.Relocate(request)
    move.id = reply.operation.operation_id
    return reply.operation


async def plan(lab: Lab, **request: object) -> pb.RelocateResponse:
    wanted = pb.RelocateRequest(plan_only=True, **request)
    return await lab.operator.signaling.Relocate(wanted)


async def copied(move: Move, kind: int) -> None:
    """As far as the switch, each host being told the kind."""
    assert (await move.prepare()).move.kind == kind
    assert (await move.copy()).move.kind == kind
    wanted = await move.destination.until_ordered(VM, START)
    assert (wanted.owned, wanted.epoch, wanted.move.kind) == (True, 2, kind)


async def state(lab: Lab) -> int:
    return (await lab.record(VM)).location.state


@pytest.mark.parametrize(
    ("was", "asked", "kind"),
    [(ON, 0, LIVE), (ON, SUSPEND, SUSPEND), (ON, COLD, RESTART), (OFF, 0, COLD), (OFF, LIVE, COLD)],
)
async def test_what_is_asked_for_is_of_vms_that_run(
    move: Move, was: int, asked: int, kind: int
) -> None:
    await move.source.register(vm(1), was)
    planned = await plan(move.lab, vm_id=VM, destination="host-2", kind=asked)
    assert [m.kind for m in planned.moves] == [kind]
    assert (await begin(move, asked)).move_kind == kind
    await move.lab.restart()
    assert (await move.get()).move_kind == kind, "it is in the durable record"


async def test_what_was_off_is_off_at_the_destination(move: Move) -> None:
    await move.source.register(vm(1), OFF)
    await begin(move, COLD)
    await copied(move, COLD)
    wanted = move.destination.vms[VM]
    await move.destination.outcome(wanted, SHUT_OFF)
    await move.clean()
    done = await move.done()
    assert [p.phase for p in done.phases] == list(PHASES)
    assert done.receipt.policy_hash_after == wanted.profile_hash, "as it was prepared"
    assert (await move.owner(), await state(move.lab)) == (("host-2", 2), OFF)


async def test_as_long_as_the_source_has_it_nobody_else_is_its_owner(move: Move) -> None:
    await begin(move, COLD)
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="WOULD_NOT_STOP", message="it did not shut down")
    await move.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    stop = await move.source.until_ordered(VM, ABORT)
    assert stop.move.kind == RESTART
    assert START not in [m.vm.move.step for m in move.destination.heard]
    await move.go_back()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (FAILED, "WOULD_NOT_STOP")
    assert await move.owner() == ("host-1", 1)


async def test_a_definition_at_the_destination_that_is_not_gone_is_no_word_to_go_back(
    move: Move,
) -> None:
    await begin(move, COLD)
    await move.prepare()
    await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.stay()
    wanted = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(wanted, SHUT_OFF)
    await move.destination.report()
    assert (await move.get()).phase == operations.PHASE_ABORTING
    await move.destination.outcome(wanted, ABSENT)
    assert (await move.done()).phase == operations.PHASE_CANCELLED


async def test_what_goes_wrong_on_the_way_back_does_not_hide_why_it_went_back(move: Move) -> None:
    await begin(move, SUSPEND)
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="COPY_FAILED", message="no route to host")
    await move.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await move.stay()
    wanted = await move.destination.until_ordered(VM, CLEAN)
    failure = operations.Failure(reason="HYPERVISOR_FAILED", message="libvirtd does not answer")
    await move.destination.outcome(wanted, ABSENT, ok=False, failure=failure)
    done = await move.done()
    assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED")


async def test_what_would_not_start_is_the_destinations_and_off(move: Move) -> None:
    await begin(move, COLD)
    await copied(move, RESTART)
    failure = operations.Failure(reason="WOULD_NOT_START", message="no such disk")
    wanted = move.destination.vms[VM]
    await move.destination.outcome(wanted, SHUT_OFF, ok=False, failure=failure)
    await move.clean()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (FAILED, "WOULD_NOT_START")
    assert (await move.owner(), await state(move.lab)) == (("host-2", 2), OFF)


async def test_what_was_started_before_its_turn_came_is_not_moved_cold(lab: Lab) -> None:
    move = await Move.ready(lab)
    for number in (1, 2, 3):
        await move.source.register(vm(number), OFF)
        request = pb.RelocateRequest(vm_id=vm_id(number), destination="host-2")
        move.id = (await lab.operator.signaling.Relocate(request)).operation.operation_id
    assert (await move.get()).phase == operations.PHASE_QUEUED, "two at a time"
    await move.source.register(vm(3), ON)
    await move.destination.until_ordered(VM, PREPARE)
    first = await lab.operator.operations.List(operations.ListOperationsRequest(vm_id=VM))
    request = operations.CancelOperationRequest(operation_id=first.operations[0].operation_id)
    await lab.operator.operations.Cancel(request)
    await move.source.outcome(await move.source.until_ordered(VM, ABORT), SHUT_OFF)
    done = await move.done()
    assert (done.phase, done.failure.reason) == (FAILED, Reason.NOT_SHUT_OFF.name)


async def test_a_drain_takes_along_what_is_off(lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.source.register(vm(2), OFF)
    planned = await plan(lab, server_id="host-1", kind=SUSPEND)
    assert {m.vm_id: m.kind for m in planned.moves} == {VM: SUSPEND, vm_id(2): COLD}
    assert not planned.objections


async def test_a_restart_is_asked_for_as_a_cold_move(move: Move) -> None:
    refusal = await refusal_of(plan(move.lab, vm_id=VM, kind=RESTART))
    assert refusal.reason is Reason.INVALID_FIELD
