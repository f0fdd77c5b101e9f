"""Which words on a move that has ended are still taken."""

from __future__ import annotations

import pytest

from common.model.operation import HostedState, MoveOutcome, MoveStep, Operation, Phase, PhaseTime
from tests.support.nouns import vm_id
from vcenter.core import keys
from vcenter.core.heard import FIGURES_WITHIN_MS, Heard
from vcenter.core.table import Change, Table

VM, MOVE, ENDED = vm_id(1), vm_id(101), 1_000
LATER = ENDED + FIGURES_WITHIN_MS


def taken(at_ms: int, phase: Phase = Phase.SUCCEEDED, epoch_after: int = 2) -> bool:
    """Whether the source's last figures enter the receipt of a move that ended so."""
    move = Operation(
        operation_id=MOVE,
        kind="relocate",
        vm_id=VM,
        source="h1",
        destination="h2",
        phase=phase,
        requested_by="operator/alice",
        created_ms=1,
        ended_ms=ENDED if phase.final else 0,
        epoch_before=1,
        epoch_after=epoch_after,
        phases=(PhaseTime(phase, ENDED),),
    )
    table, absent = Table(), HostedState.ABSENT
    table.apply(1, [Change(keys.operation(MOVE), move)])
    clean = MoveStep.CLEAN
    said = MoveOutcome(MOVE, VM, epoch_after or 1, clean, True, absent, bytes=5, downtime_ms=7.0)
    changes = Heard("h1", said).decide(table, at_ms).changes
    return any(
        isinstance(each.record, Operation) and each.record.receipt.downtime_ms == 7.0
        for each in changes
    )


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_last_figures_are_taken_for_a_minute_after_the_end(phase: Phase) -> None:
    assert taken(ENDED, phase) and taken(LATER, phase)
    assert not taken(LATER + 1, phase)


def test_of_a_move_that_never_switched_there_are_none() -> None:
    assert not taken(ENDED, Phase.CANCELLED, epoch_after=0)
