"""A move between two domains, each with a ledger of its own: who follows whom, and how.

Both have the operation, under one id, and each its own host's orders. The domain whose VM it is
decides (`movement.decides_here`), the other does as it hears. What belongs to a domain is given up
there, durably, before the other one takes it: at the switch by the source's (owner abroad, epoch
+ 1), on the way back by the destination's. In between nobody runs the VM, and whoever reads either
ledger goes on from there. A word that comes late, or twice, finds nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.model.operation import HostedState, MoveOutcome, MoveStep, Operation, Phase
from common.model.vm import Location, VmState
from vcenter.core import keys
from vcenter.core.command import Decision
from vcenter.core.heard import Heard
from vcenter.core.movement import (
    Event,
    advance,
    decides_here,
    destination_silent,
    put,
    released,
)
from vcenter.core.placement import Objection, failure_from
from vcenter.core.table import Change
from vcenter.core.view import View

# Where the destination's domain goes when it hears that the source's is there.
_FOLLOWS: dict[Phase, frozenset[Phase]] = {
    Phase.PREPARING: frozenset({Phase.COPYING, Phase.ABORTING, Phase.SWITCHING}),
    Phase.COPYING: frozenset({Phase.ABORTING, Phase.SWITCHING}),
    Phase.ABORTING: frozenset({Phase.SWITCHING}),
    Phase.SETTLING: frozenset({Phase.SUCCEEDED}),
    Phase.RETURNING: frozenset({Phase.LOST_NEEDS_FENCE}),
}
_ENDED_WITHOUT = frozenset({Phase.FAILED, Phase.CANCELLED})  # from anywhere

# Where the source's domain goes when it hears what came of the switch.
_CAME: dict[Phase, Event] = {
    Phase.SETTLING: Event.STARTED,
    Phase.RETURNING: Event.START_MISSED,
    Phase.LOST_NEEDS_FENCE: Event.START_LOST,
    Phase.FAILED: Event.SETTLED,
}


def followed(view: View, mine: Operation, theirs: Operation, now_ms: int) -> Decision:
    """At the destination's domain: what the source's says of the move, in our names."""
    if decides_here(mine) or mine.phase.final:
        return Decision(reply=mine)
    if theirs.phase is mine.phase:
        return _acknowledged(mine, theirs)
    if theirs.phase not in _FOLLOWS[mine.phase] | _ENDED_WITHOUT:
        return Decision(reply=mine)
    if theirs.phase is Phase.SWITCHING:
        return _taken(view, mine, theirs, now_ms)
    return _entered(view, mine, theirs, now_ms)


def _acknowledged(mine: Operation, theirs: Operation) -> Decision:
    if mine.acks == theirs.acks:
        return Decision(reply=mine)
    acked = replace(mine, acks=theirs.acks)
    return Decision((put(acked),), acked)


def _taken(view: View, mine: Operation, theirs: Operation, now_ms: int) -> Decision:
    """The source's domain has given the VM up: it is ours, at the epoch that it named."""
    record = view.must_vm(mine.vm_id)
    if theirs.epoch_after != record.location.epoch + 1:
        return Decision(reply=mine)
    moved = _in_phase(mine, theirs, now_ms)
    location = Location(mine.destination, VmState.INCOMING, theirs.epoch_after)
    owned = replace(record, location=location, changed_ms=now_ms)
    return Decision((put(moved), Change(keys.vm(mine.vm_id), owned)), moved)


def _entered(view: View, mine: Operation, theirs: Operation, now_ms: int) -> Decision:
    moved = _in_phase(mine, theirs, now_ms)
    record = view.vm(mine.vm_id)
    if not moved.phase.final or record is None or record.operation_id != mine.operation_id:
        return Decision((put(moved),), moved)
    return Decision((put(moved), *released(record, now_ms)), moved)


def _in_phase(mine: Operation, theirs: Operation, now_ms: int) -> Operation:
    """What became of it, and when, is the source's domain's to say."""
    return replace(
        mine,
        phase=theirs.phase,
        epoch_after=theirs.epoch_after,
        acks=theirs.acks,
        gated=theirs.gated,
        held=theirs.held,
        cancel_requested=theirs.cancel_requested,
        failure=theirs.failure,
        receipt=theirs.receipt,
        phases=theirs.phases,
        ended_ms=now_ms if theirs.phase.final else 0,
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """At the source's domain: what the destination's says. `theirs` None: it has no such move, and
    `objections` say why. `outcome`: its host's last word, `silent`: the host is not attached."""

    operation_id: str
    theirs: Operation | None = None
    objections: tuple[Objection, ...] = ()
    outcome: MoveOutcome | None = None
    silent: bool = False

    def decide(self, view: View, now_ms: int) -> Decision:
        mine = view.operation(self.operation_id)
        if mine is None:
            return Decision()
        if mine.phase.final:
            return self._known(mine)
        if not decides_here(mine):
            return self._came(view, mine, now_ms)
        if self.theirs is None:
            return self._refused(view, mine, now_ms)
        if self.outcome is not None:
            return Heard(mine.destination, self.outcome).decide(view, now_ms)
        return destination_silent(view, mine, now_ms) if self.silent else Decision()

    def _known(self, mine: Operation) -> Decision:
        if mine.told or self.theirs is None or not self.theirs.phase.final:
            return Decision()
        return Decision((put(replace(mine, told=True)),))

    def _refused(self, view: View, mine: Operation, now_ms: int) -> Decision:
        if mine.phase is not Phase.PREPARING or not self.objections:
            return Decision()
        failed = replace(mine, failure=failure_from(self.objections))
        return advance(view, failed, Event.PREPARE_FAILED, now_ms)

    def _came(self, view: View, mine: Operation, now_ms: int) -> Decision:
        theirs = self.theirs
        event = _CAME.get(theirs.phase) if theirs is not None else None
        if theirs is None or event is None:
            return Decision()
        if event is Event.START_MISSED and theirs.epoch_after != mine.epoch_after + 1:
            return Decision()
        if event is Event.SETTLED:
            mine = replace(mine, failure=theirs.failure)
        if event is not Event.STARTED:
            return advance(view, mine, event, now_ms)
        event = Event.STARTED if theirs.failure is None else Event.START_FAILED
        return advance(view, mine, event, now_ms, _start_of(theirs))


def _start_of(theirs: Operation) -> MoveOutcome:
    """How it started there, in a host's words."""
    ok = theirs.failure is None
    return MoveOutcome(
        theirs.operation_id,
        theirs.vm_id,
        theirs.epoch_after,
        MoveStep.START,
        ok,
        HostedState.RUNNING if ok else HostedState.SHUT_OFF,
        failure=theirs.failure,
        policy_hash=theirs.receipt.policy_hash_after,
    )
