"""What a host's answer to one step of a move means: an event for `movement`, or nothing yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.errors import Reason
from common.model.operation import (
    Failure,
    HostedState,
    MoveKind,
    MoveOutcome,
    MoveStep,
    Operation,
    Phase,
)
from vcenter.core import standby
from vcenter.core.command import Decision
from vcenter.core.movement import (
    TRANSITIONS,
    Event,
    advance,
    copied,
    decides_here,
    order_epoch,
    put,
)
from vcenter.core.view import View

# At the source the VM runs on, or is still defined and off.
_STAYS = (HostedState.RUNNING, HostedState.SHUT_OFF)
# It does not run there again by itself.
_OVER = (HostedState.ABSENT, HostedState.HELD)

FIGURES_WITHIN_MS = 60_000  # of a move's end; then its receipt stands


@dataclass(frozen=True, slots=True)
class Heard:
    """A host's answer to one step. Late, foreign or repeated answers change nothing."""

    server_id: str
    outcome: MoveOutcome

    def decide(self, view: View, now_ms: int) -> Decision:
        operation = view.operation(self.outcome.operation_id)
        if operation is not None and self._adds_figures(operation, now_ms):
            told = copied(operation, self.outcome)
            return Decision((put(told),) if told != operation else ())
        if operation is None or not self.is_asked(operation) or not decides_here(operation):
            return Decision()
        if operation.move_kind is MoveKind.STANDBY:
            acked, event = standby.heard(view, operation, self.server_id, self.outcome)
        else:
            acked = self._acknowledge(operation)
            event = event_of(acked, self.outcome)
        if event is None or (acked.phase, event) not in TRANSITIONS:
            changed = acked != operation
            return Decision((put(acked),) if changed else ())
        advanced = advance(view, acked, event, now_ms, self.outcome)
        return standby.with_alarm(view, advanced, now_ms)

    def is_asked(self, operation: Operation) -> bool:
        """The right host, for this VM, at the epoch of the order that stands."""
        if operation.phase.final:
            return False
        step = self.outcome.step
        at_source = step in (MoveStep.COPY, MoveStep.ABORT, MoveStep.MIRROR)
        if step is MoveStep.CLEAN:
            at_source = operation.phase not in (Phase.ABORTING, Phase.RETURNING)
        if step is MoveStep.START:
            at_source = operation.phase is Phase.RETURNING
        return (
            self.outcome.vm_id == operation.vm_id
            and self.outcome.epoch == order_epoch(operation)
            and self.server_id == (operation.source if at_source else operation.destination)
        )

    def _adds_figures(self, ended: Operation, now_ms: int) -> bool:
        """The source's last figures of a copy, from a hypervisor that tells them when all is over:
        no move waits for them."""
        return (
            ended.phase.final
            and now_ms - ended.ended_ms <= FIGURES_WITHIN_MS
            and bool(ended.epoch_after and self.outcome.bytes)
            and self.outcome.step is MoveStep.CLEAN
            and self.outcome.vm_id == ended.vm_id
            and self.outcome.epoch == order_epoch(ended)
            and self.server_id == ended.source
        )

    def _acknowledge(self, operation: Operation) -> Operation:
        """Going back needs both hosts' word: the source runs on, the destination has nothing.

        Only an answer to the order to go back counts: an earlier one may have been overtaken.
        """
        outcome = self.outcome
        dead = outcome.step is MoveStep.ABORT and _would_not_start(outcome)
        stopped = outcome.step is MoveStep.ABORT and (outcome.ok or dead)
        good = (stopped and outcome.truth in _STAYS) or (
            outcome.step is MoveStep.CLEAN and outcome.truth is HostedState.ABSENT
        )
        if operation.phase is not Phase.ABORTING or not good or self.server_id in operation.acks:
            return operation
        acked = replace(operation, acks=(*operation.acks, self.server_id))
        return _left_off(acked, outcome) if dead else acked


def _left_off(operation: Operation, outcome: MoveOutcome) -> Operation:
    """It was shut down for a move that has failed, and does not run again."""
    failure = operation.failure or Failure(Reason.WOULD_NOT_START.name, "")
    why = outcome.failure.message if outcome.failure is not None else ""
    text = f"{failure.message}; it is off now, for it would not start again: {why}"
    return replace(operation, failure=replace(failure, message=text))


def event_of(operation: Operation, outcome: MoveOutcome) -> Event | None:
    """What an answer means. None: nothing can be concluded from it yet."""
    if outcome.step is MoveStep.PREPARE:
        return Event.PREPARED if outcome.ok else Event.PREPARE_FAILED
    if outcome.step is MoveStep.START:
        if outcome.ok:
            return Event.STARTED
        if _would_not_start(outcome):
            return Event.START_FAILED
        if outcome.truth is not HostedState.ABSENT:
            return None
        may_return = operation.held and operation.phase is Phase.SWITCHING
        return Event.START_MISSED if may_return else Event.START_LOST
    if outcome.step in (MoveStep.COPY, MoveStep.ABORT) and outcome.truth in _OVER:
        return Event.COPIED
    if operation.phase is Phase.ABORTING:
        return Event.ABORTED if words_to_go_back(operation) <= set(operation.acks) else None
    if outcome.step is MoveStep.COPY and outcome.truth in _STAYS:
        return None if outcome.ok else Event.COPY_FAILED
    if outcome.step is MoveStep.CLEAN and _came_back(outcome):
        return Event.CAME_BACK
    forgotten = outcome.ok and outcome.truth not in (HostedState.RUNNING, HostedState.HELD)
    return Event.CLEANED if outcome.step is MoveStep.CLEAN and forgotten else None


def _came_back(outcome: MoveOutcome) -> bool:
    """Its guest runs where the move had ended it for good: somebody has moved it again since. Where
    it belongs now is told by its arrival, for which both hosts are asked."""
    return outcome.truth is HostedState.RUNNING and _said(outcome, Reason.RUNNING_IN_TWO_PLACES)


def _would_not_start(outcome: MoveOutcome) -> bool:
    return outcome.truth is HostedState.SHUT_OFF and _said(outcome, Reason.WOULD_NOT_START)


def _said(outcome: MoveOutcome, reason: Reason) -> bool:
    return outcome.failure is not None and outcome.failure.reason == reason.name


def words_to_go_back(operation: Operation) -> set[str]:
    """A destination that was never sent a copy has nothing that could run; it need not answer."""
    was_copied = any(entered.phase is Phase.COPYING for entered in operation.phases)
    return {operation.source, operation.destination} if was_copied else {operation.source}
