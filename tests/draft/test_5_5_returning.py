"""5.5, a source held at the switch: what the destination loses, the source takes back."""

from __future__ import annotations

import pytest

from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, HELD, PREPARE, RUNNING, START, UNKNOWN
from tests.support.lab import Lab
from tests.support.moving import VM, Move

RETURNING, FAILED = operations.PHASE_RETURNING, operations.PHASE_FAILED
SWITCHING, LOST = operations.PHASE_SWITCHING, operations.PHASE_LOST_NEEDS_FENCE


@pytest.fixture
async def move(lab: Lab) -> Move:
    """Copied, through two gates; the source stands still."""
    move = await Move.ready(lab)
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    await move.destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash, gated=True)
    wanted = await move.source.until_ordered(VM, COPY)
    assert wanted.move.gated, "the source may say that it is held"
    await move.source.outcome(wanted, HELD, policy_hash=wanted.profile_hash)
    await move.until(SWITCHING)
    return move


async def missed(move: Move) -> None:
    """The destination's copy has gone, and it says so."""
    wanted = await move.destination.until_ordered(VM, START)
    await move.destination.outcome(wanted, ABSENT, ok=False)
    await move.until(RETURNING)


async def test_the_ledger_changes_while_the_source_is_held(move: Move) -> None:
    assert await move.owner() == ("host-2", 2)
    await move.start()
    wanted = await move.source.until_ordered(VM, CLEAN)
    await move.source.outcome(wanted, ABSENT, bytes=5_000_000, downtime_ms=7.5)
    done = await move.done()
    assert done.phase == operations.PHASE_SUCCEEDED and done.held
    assert (done.receipt.bytes, done.receipt.downtime_ms) == (5_000_000, 7.5)


async def test_what_the_destination_lost_goes_back_to_the_source(move: Move) -> None:
    await missed(move)
    assert await move.owner() == ("host-1", 3), "another change of owner, another epoch"
    wanted = await move.source.until_ordered(VM, START)
    assert wanted.owned and wanted.move.epoch == 3
    assert (await move.destination.until_ordered(VM, CLEAN)).owned is False
    await move.source.outcome(wanted, RUNNING, policy_hash=wanted.profile_hash)
    done = await move.done()
    assert done.phase == FAILED and done.failure.reason
    record = await move.lab.record(VM)
    assert record.location.state == types.VM_STATE_RUNNING
    assert not record.operation_id
    assert await move.owner() == ("host-1", 3)


async def test_silence_brings_nothing_back(move: Move) -> None:
    """Only the destination's word that it has nothing: it may run there."""
    wanted = await move.destination.until_ordered(VM, START)
    await move.destination.outcome(wanted, UNKNOWN, ok=False)
    assert (await move.get()).phase == SWITCHING
    assert await move.owner() == ("host-2", 2)


async def test_what_the_source_has_lost_too_is_lost(move: Move) -> None:
    await missed(move)
    wanted = await move.source.until_ordered(VM, START)
    await move.source.outcome(wanted, ABSENT, ok=False)
    assert (await move.done()).phase == LOST


async def test_an_old_answer_of_the_destination_starts_nothing_there(move: Move) -> None:
    stale = await move.destination.until_ordered(VM, START)
    await missed(move)
    await move.destination.outcome(stale, RUNNING, policy_hash=stale.profile_hash)
    assert (await move.get()).phase == RETURNING
    assert await move.owner() == ("host-1", 3)
