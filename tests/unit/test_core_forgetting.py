"""Which ended operations are forgotten, and which somebody may still need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.operation import Operation, Phase, PhaseTime
from common.model.vm import Location, Vm, VmRecord, VmState
from tests.support.nouns import vm_id
from vcenter.core import keys
from vcenter.core.forgetting import ForgetOperations
from vcenter.core.table import Change, Table

VM, PARENT, MOVE = vm_id(1), vm_id(100), vm_id(101)
ENDED = 1_000


def operation(operation_id: str = MOVE, **more: object) -> Operation:
    made = Operation(
        operation_id=operation_id,
        kind="relocate",
        vm_id=VM,
        source="h1",
        destination="h2",
        phase=Phase.SUCCEEDED,
        requested_by="operator/alice",
        created_ms=1,
        ended_ms=ENDED,
        epoch_before=1,
        phases=(PhaseTime(Phase.PREPARING, 1), PhaseTime(Phase.SUCCEEDED, ENDED)),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def forgotten(*known: Operation, state: VmState = VmState.RUNNING, held_by: str = "") -> set[str]:
    record = VmRecord(Vm(VM), Location("h2", state, 2), changed_ms=1, operation_id=held_by)
    changes = [Change(keys.operation(o.operation_id), o) for o in known]
    table = Table()
    table.apply(1, [Change(keys.vm(VM), record), *changes])
    ids = tuple(o.operation_id for o in known)
    decision = ForgetOperations((*ids, vm_id(999)), ENDED + 1).decide(table, ENDED + 2)
    assert all(change.record is None for change in decision.changes)
    assert decision.reply == len(decision.changes)
    return {change.key.removeprefix("op/") for change in decision.changes}


def test_what_has_ended_long_ago_is_forgotten() -> None:
    other = operation(PARENT, phase=Phase.FAILED, vm_id=vm_id(2))
    assert forgotten(operation(), other) == {MOVE, PARENT}


@pytest.mark.parametrize(
    "kept",
    [
        operation(ended_ms=ENDED + 1),
        operation(phase=Phase.SETTLING, ended_ms=0),
        operation(source="paris/h1"),
        operation(destination="paris/h2", told=False),
    ],
    ids=["too young", "under way", "from another domain", "another domain is to be told"],
)
def test_what_is_needed_stays(kept: Operation) -> None:
    assert forgotten(kept) == set()


def test_of_a_move_to_another_domain_nothing_is_kept_when_it_knows() -> None:
    assert forgotten(operation(destination="paris/h2", told=True)) == {MOVE}


def test_a_move_that_has_lost_its_vm_stays_until_that_is_settled() -> None:
    lost = operation(phase=Phase.LOST_NEEDS_FENCE)
    assert forgotten(lost, state=VmState.LOST_NEEDS_FENCE) == set()
    assert forgotten(operation(), held_by=MOVE) == set()
    assert forgotten(lost) == {MOVE}


def test_parts_go_with_what_they_are_parts_of() -> None:
    part = operation(parent=PARENT)
    drain = operation(PARENT, vm_id="", ended_ms=ENDED + 1)
    assert forgotten(part, drain) == set()
    assert forgotten(part, replace(drain, ended_ms=ENDED)) == {MOVE, PARENT}
