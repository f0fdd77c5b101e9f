"""A person calls a move off: in every phase before the switch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.errors import Reason, Refusal
from common.model.operation import Operation, Phase
from vcenter.core import indexes, standby
from vcenter.core.command import Decision
from vcenter.core.movement import TRANSITIONS, Event, advance, failure_of, put
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Cancel:
    operation_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        operation = view.must_operation(self.operation_id)
        if operation.phase.final:
            raise Refusal(Reason.ALREADY_DONE, f"it has ended: {operation.phase}")
        if operation.phase is Phase.UNDER_WAY:
            return _cancel_parts(view, operation, now_ms)
        if operation.phase is Phase.ABORTING:
            return Decision(reply=operation)
        if (operation.phase, Event.CANCEL) not in TRANSITIONS:
            raise Refusal(Reason.TOO_LATE_TO_CANCEL, f"it is {operation.phase}")
        asked = replace(operation, cancel_requested=True)
        cancelled = advance(view, asked, Event.CANCEL, now_ms)
        return standby.over_at_once(view, cancelled, now_ms)


def _cancel_parts(view: View, operation: Operation, now_ms: int) -> Decision:
    """Every part that can still be cancelled; those that switch already finish."""
    asked = replace(operation, cancel_requested=True)
    asked = replace(asked, failure=failure_of(operation, Event.CANCEL, None))
    changes = [put(asked)]
    for part in view.all(Operation, indexes.parts_of(operation.operation_id)):
        if (part.phase, Event.CANCEL) in TRANSITIONS:
            asked_of = replace(part, cancel_requested=True)
            changes += advance(view, asked_of, Event.CANCEL, now_ms).changes
    return Decision(tuple(changes), asked)
