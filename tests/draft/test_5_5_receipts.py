"""5.5, what was expected of a move, and what a move leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, COPY
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import vm_id

MIB = 1 << 20


async def planned(lab: Lab, **request: object) -> operations.Prediction:
    asked = signaling.RelocateRequest(plan_only=True, **request)  # type: ignore[arg-type]
    reply = await lab.operator.signaling.Relocate(asked)
    return reply.moves[0].predicted


def running(dirty: float) -> signaling.VmStatus:
    return signaling.VmStatus(
        vm_id=VM, epoch=1, state=types.VM_STATE_RUNNING, memory_used_mib=300,
        dirty_bytes_per_second=dirty,
    )  # fmt: skip


async def test_a_plan_expects_more_of_a_guest_that_writes(lab: Lab) -> None:
    move = await Move.ready(lab)
    unknown = await planned(lab, vm_id=VM)
    assert unknown.basis == operations.BASIS_ASSUMED
    assert not unknown.HasField("sampled_bytes_per_second")
    await move.source.report(running(dirty=0.0))
    idle = await planned(lab, vm_id=VM)
    await move.source.report(running(dirty=60.0 * MIB))
    busy = await planned(lab, vm_id=VM)
    assert busy.sampled_bytes_per_second == 60.0 * MIB
    assert busy.total_ms > idle.total_ms and busy.downtime_ms > idle.downtime_ms
    assert (await planned(lab, server_id="host-1")) == busy, "a drain's plan says the same"


async def test_the_receipt_has_what_was_expected_beside_what_happened(lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.source.report(running(dirty=60.0 * MIB))
    expected = await planned(lab, vm_id=VM)
    begun = (await move.begin()).operation
    assert begun.predicted == expected
    listed = await move.get()
    waits = listed.expected_end.ToMilliseconds() - listed.created_at.ToMilliseconds()
    assert abs(waits - expected.total_ms) <= 2, "and should end by that"
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    figures = {"bytes": 500 * MIB, "bytes_per_second": 250.0 * MIB, "downtime_ms": 12.5}
    await move.source.outcome(wanted, ABSENT, dirty_bytes_per_second=40.0 * MIB, **figures)
    await move.start()
    await move.clean()
    done = await move.done()
    assert done.predicted == expected
    assert done.receipt.bytes_per_second == 250.0 * MIB
    assert done.receipt.dirty_bytes_per_second == 40.0 * MIB
    assert done.requested_by.startswith("operator/")
    back = await planned(lab, vm_id=VM, destination="host-1")
    assert back.basis == operations.BASIS_ALIKE, "the way back has been measured too"
    assert (back.total_ms, back.downtime_ms) == (done.receipt.total_ms, 12.5)


FIGURES = {"bytes": 500 * MIB, "iterations": 4, "downtime_ms": 55.5}


@pytest.fixture
async def ended(lab: Lab) -> tuple[Move, session.WantedVm]:
    """A move that has succeeded, and the order to clean up that its source has answered."""
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SETTLING)
    cleaned = await move.clean()
    await move.done()
    return move, cleaned


async def test_the_sources_last_figures_complete_the_receipt_of_an_ended_move(
    ended: tuple[Move, session.WantedVm], lab: Lab
) -> None:
    move, cleaned = ended
    before = (await move.get()).receipt
    await move.source.outcome(cleaned, ABSENT)  # again, with nothing to add
    await lab.heard(move.source)
    assert (await move.get()).receipt == before and before.downtime_ms == 12.5
    for _ in range(2):
        await move.source.outcome(cleaned, ABSENT, **FIGURES)
        await lab.heard(move.source)
        done = await move.get()
    assert done.phase == operations.PHASE_SUCCEEDED and done.ended_at
    assert (done.receipt.bytes, done.receipt.iterations) == (500 * MIB, 4)
    assert done.receipt.downtime_ms == 55.5
    assert done.receipt.total_ms == before.total_ms, "the rest stands"


@pytest.mark.parametrize(
    "said",
    [{"epoch": 1}, {"step": COPY}, {"vm_id": vm_id(2)}, {"bytes": 0}],
    ids=["of another epoch", "of another step", "of another VM", "no figures"],
)
async def test_other_words_on_an_ended_move_change_nothing(
    ended: tuple[Move, session.WantedVm], lab: Lab, said: dict[str, Any]
) -> None:
    move, cleaned = ended
    with lab.nothing_changes():
        await move.source.outcome(cleaned, ABSENT, **(FIGURES | said))
        await lab.heard(move.source)


async def test_nobody_but_the_source_completes_them(
    ended: tuple[Move, session.WantedVm], lab: Lab
) -> None:
    move, cleaned = ended
    with lab.nothing_changes():
        await move.destination.outcome(cleaned, ABSENT, **FIGURES)
        await lab.heard(move.destination)


async def test_a_rate_that_is_no_number_is_refused(lab: Lab) -> None:
    move = await Move.ready(lab)
    for rate in (float("nan"), float("inf"), -1.0):
        with lab.nothing_changes():
            refusal = await refusal_of(move.source.report(running(dirty=rate)))
        assert refusal.reason is Reason.INVALID_FIELD


async def test_an_ended_operation_is_kept_for_the_configured_time_only(lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SUCCEEDED)
    await lab.restart()
    assert (await move.get()).done
    await lab.reconfigure(operations_hours=0.0)
    request = operations.ListOperationsRequest(vm_id=VM)
    async with asyncio.timeout(60):  # a round is 3 s by the quick clock
        while (await lab.operator.operations.List(request)).operations:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    gone = lab.operator.operations.Get(operations.GetOperationRequest(operation_id=move.id))
    assert (await refusal_of(gone)).reason is Reason.UNKNOWN_OPERATION
    assert await move.owner() == ("host-2", 2)
