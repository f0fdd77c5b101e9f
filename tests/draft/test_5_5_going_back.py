"""5.5: a move that fails or is called off, and words that come late, twice, or from strangers."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import (
    ABORT,
    ABSENT,
    CLEAN,
    COPY,
    PREPARE,
    RUNNING,
    START,
    UNKNOWN,
)
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM, Move, order
from tests.support.nouns import vm, vm_id

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
ABORTING, LOST = operations.PHASE_ABORTING, operations.PHASE_LOST_NEEDS_FENCE
CLOSED, OPEN = session.PORT_STATE_CLOSED, session.PORT_STATE_OPEN
FAILED, CANCELLED = operations.PHASE_FAILED, operations.PHASE_CANCELLED


async def test_a_failed_copy_leaves_the_vm_where_it_was(move: Move) -> None:
    await move.reach(COPYING)
    failure = operations.Failure(reason="HYPERVISOR_FAILED", message="no route")
    copying = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(copying, RUNNING, ok=False, failure=failure)
    await move.go_back()
    operation = await move.done()
    assert (operation.phase, operation.failure) == (FAILED, failure)
    assert operation.epoch_after == 0
    assert await move.owner() == ("host-1", 1)
    await move.destination.until_gone(VM)
    await move.source.until(lambda: order(move.source) == 0)
    assert move.source.vms[VM].ports == OPEN


async def test_a_destination_that_cannot_prepare_ends_it_before_the_copy(move: Move) -> None:
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    failure = operations.Failure(reason="NOT_ENFORCEABLE", message="no nftables")
    await move.destination.outcome(wanted, UNKNOWN, ok=False, failure=failure)
    await move.stay()  # the destination, which knows nothing, is not waited for
    assert ((await move.done()).phase, (await move.get()).failure) == (FAILED, failure)
    assert await move.owner() == ("host-1", 1)


@pytest.mark.parametrize("phase", [PREPARING, COPYING])
async def test_cancel_is_legal_until_the_switch(move: Move, phase: int) -> None:
    await move.reach(phase)
    assert (await move.cancel()).cancel_requested
    await (move.stay() if phase == PREPARING else move.go_back())
    operation = await move.done()
    assert (operation.phase, operation.failure.reason) == (CANCELLED, "CANCELLED_BY_USER")
    assert await move.owner() == ("host-1", 1)


async def test_a_copy_that_was_faster_than_the_cancel_goes_forward(move: Move) -> None:
    await move.reach(COPYING)
    copying = await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.source.outcome(copying, ABSENT)
    await move.start()
    await move.clean()
    operation = await move.done()
    assert operation.phase == SUCCEEDED and not operation.HasField("failure")
    assert await move.owner() == ("host-2", 2)


@pytest.mark.parametrize("phase", [SWITCHING, SETTLING])
async def test_later_it_is_too_late_to_cancel(move: Move, phase: int) -> None:
    await move.reach(phase)
    with move.lab.nothing_changes():
        assert (await refusal_of(move.cancel())).reason is Reason.TOO_LATE_TO_CANCEL


async def test_what_has_ended_cannot_be_cancelled(move: Move) -> None:
    await move.reach(SUCCEEDED)
    with move.lab.nothing_changes():
        assert (await refusal_of(move.cancel())).reason is Reason.ALREADY_DONE


async def test_going_back_needs_the_word_of_both(move: Move) -> None:
    await move.reach(COPYING)
    await move.cancel()
    aborting = await move.source.until_ordered(VM, ABORT)
    await move.source.outcome(aborting, UNKNOWN)
    await move.source.outcome(aborting, RUNNING, ok=False)
    await move.source.outcome(aborting, RUNNING, step=COPY, ok=False)
    await move.lab.heard(move.source)
    assert list((await move.get()).acks) == []
    assert order(move.destination) == PREPARE, "the copy may have been faster than the cancel"
    await move.source.outcome(aborting, RUNNING)
    cleaning = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(cleaning, RUNNING, ok=False)
    await move.destination.outcome(cleaning, ABSENT, step=PREPARE)
    await move.lab.heard(move.destination)
    operation = await move.get()
    assert (operation.phase, list(operation.acks)) == (ABORTING, ["host-1"])
    await move.destination.outcome(cleaning, ABSENT)
    assert (await move.done()).phase == CANCELLED


async def test_a_start_that_is_lost_needs_a_fence(move: Move) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    await move.destination.outcome(starting, ABSENT, ok=False)
    assert (await move.done()).phase == LOST
    location = (await move.lab.record(VM)).location
    assert (location.server_id, location.epoch) == ("host-2", 2)
    assert location.state == types.VM_STATE_LOST_NEEDS_FENCE
    (alert,) = await move.lab.alerts(Reason.NEEDS_FENCE.name)
    assert (alert.vm_id, alert.severity) == (VM, types.SEVERITY_CRITICAL)
    await move.destination.until(lambda: order(move.destination) == 0)
    assert move.destination.vms[VM].ports == CLOSED
    assert (await refusal_of(move.begin())).reason is Reason.NEEDS_FENCE


async def test_a_start_that_is_not_known_is_waited_for(move: Move) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with move.lab.nothing_changes():
        for truth in (UNKNOWN, RUNNING):
            await move.destination.outcome(starting, truth, ok=False)
        await move.lab.heard(move.destination)
    assert (await move.finish(SWITCHING)).phase == SUCCEEDED


async def test_a_source_that_still_runs_it_is_not_forgotten(move: Move) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    with move.lab.nothing_changes():
        await move.source.outcome(cleaning, RUNNING, ok=False)
        await move.lab.heard(move.source)
    assert (await move.finish(SETTLING)).phase == SUCCEEDED


async def test_a_vm_that_was_moved_back_by_hand_while_its_move_settles_is_its_hosts_again(
    move: Move,
) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    back = operations.Failure(reason="RUNNING_IN_TWO_PLACES", message="the VM runs here")
    await move.source.outcome(cleaning, RUNNING, ok=False, failure=back)
    done = await move.done()
    assert done.phase == SUCCEEDED and not done.HasField("failure"), "the move itself went well"
    assert await move.owner() == ("host-2", 2)
    move.destination.truth[VM], move.source.truth[VM] = ABSENT, RUNNING
    await move.source.register(vm(1))
    assert await move.owner() == ("host-1", 3)


# ---- late, repeated, foreign ----


async def test_repeated_outcomes_change_nothing(move: Move) -> None:
    await move.begin()
    prepared = await move.prepare()
    copied = await move.copy()
    started = await move.start()
    cleaned = await move.clean()
    await move.done()
    for late, truth in ((copied, ABSENT), (cleaned, ABSENT)):
        with move.lab.nothing_changes():
            await move.source.outcome(late, truth)
            await move.lab.heard(move.source)
    for late, truth in ((prepared, ABSENT), (started, RUNNING), (started, ABSENT)):
        with move.lab.nothing_changes():
            await move.destination.outcome(late, truth)
            await move.lab.heard(move.destination)


@pytest.mark.parametrize(
    "said",
    [
        {"epoch": 1},
        {"vm_id": vm_id(2)},
        {"operation_id": vm_id(3)},
        {"operation_id": "no uuid"},
        {"step": COPY, "truth": ABSENT},
        {"step": CLEAN, "truth": ABSENT, "epoch": 2},
        {"step": PREPARE},
        {"step": session.MOVE_STEP_UNSPECIFIED},
    ],
    ids=str,
)
async def test_an_outcome_that_nobody_asked_for_changes_nothing(
    move: Move, said: dict[str, object]
) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with move.lab.nothing_changes():
        await move.destination.outcome(starting, **({"truth": RUNNING} | said))
        await move.lab.heard(move.destination)


async def test_a_third_host_has_no_word_in_it(lab: Lab) -> None:
    move = await Move.ready(lab)
    third = await lab.agent("host-3")
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with lab.nothing_changes():
        for agent in (third, move.source):
            await agent.outcome(starting, ABSENT, ok=False)
            await agent.outcome(starting, RUNNING)
            await lab.heard(agent)


async def test_the_destination_cannot_speak_for_the_sources_cleaning(move: Move) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    with move.lab.nothing_changes():
        await move.destination.outcome(cleaning, ABSENT)
        await move.lab.heard(move.destination)


async def test_an_earlier_move_has_no_word_in_a_later_one(move: Move) -> None:
    await move.reach(COPYING)
    late = await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.go_back()
    await move.done()
    await move.reach(COPYING)
    with move.lab.nothing_changes():
        await move.source.outcome(late, ABSENT)
        await move.lab.heard(move.source)
