"""What becomes of a move: its phases as a table, and each answer of a host as an event.

Make before break. Nothing here waits: every order to a host follows from the operation's phase
(`wanted`), so whoever reads the record can go on from it. What is absent from the table is invalid.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from common.errors import Reason
from common.model.operation import (
    Failure,
    HostedState,
    MoveKind,
    MoveOutcome,
    Operation,
    Phase,
    PhaseTime,
)
from common.model.place import is_abroad
from common.model.server import Severity
from common.model.vm import Location, Tombstone, VmRecord, VmState
from vcenter.core import keys
from vcenter.core.command import Alarm, Decision
from vcenter.core.table import Change
from vcenter.core.view import View


class Event(Enum):
    PREPARED = auto()
    PREPARE_FAILED = auto()
    COPIED = auto()  # the source will not run the VM again, unless it is told to
    COPY_FAILED = auto()  # the source runs on
    STARTED = auto()
    START_LOST = auto()  # it is not where it was to start
    START_MISSED = auto()  # likewise, and the source still holds it
    START_FAILED = auto()  # it is there, off
    TAKEN_BACK = auto()  # a person has decided so; the source still holds it
    CLEANED = auto()
    CAME_BACK = auto()  # by hand, since: at the source there is the VM itself, and nothing to clean
    ABORTED = auto()  # the source runs on, the destination has nothing
    CANCEL = auto()
    DESTINATION_SILENT = auto()
    TURN = auto()
    UNFIT = auto()  # what was planned cannot be done any more
    PARTS_DONE = auto()
    PARTS_FAILED = auto()
    FENCED = auto()
    NOT_FENCED = auto()  # or not known to be
    SETTLED = auto()  # a person has decided, on proof
    IN_STEP = auto()  # a standby's copy lacks nothing
    BROKEN = auto()  # it is not kept in step any more
    PROMOTED = auto()
    TOOK_OVER = auto()  # it runs
    WOULD_NOT_RUN = auto()  # it is there, off


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.QUEUED, Event.TURN): Phase.PREPARING,
    (Phase.QUEUED, Event.UNFIT): Phase.FAILED,
    (Phase.QUEUED, Event.CANCEL): Phase.FAILED,  # CANCELLED, see _ending
    (Phase.UNDER_WAY, Event.PARTS_DONE): Phase.SUCCEEDED,
    (Phase.UNDER_WAY, Event.PARTS_FAILED): Phase.FAILED,  # or CANCELLED
    (Phase.FENCING, Event.FENCED): Phase.SUCCEEDED,
    (Phase.FENCING, Event.NOT_FENCED): Phase.FAILED,
    (Phase.PREPARING, Event.PREPARED): Phase.COPYING,
    (Phase.PREPARING, Event.PREPARE_FAILED): Phase.ABORTING,
    (Phase.PREPARING, Event.DESTINATION_SILENT): Phase.ABORTING,
    (Phase.PREPARING, Event.CANCEL): Phase.ABORTING,
    (Phase.COPYING, Event.COPIED): Phase.SWITCHING,
    (Phase.COPYING, Event.COPY_FAILED): Phase.ABORTING,
    (Phase.COPYING, Event.CANCEL): Phase.ABORTING,
    (Phase.ABORTING, Event.COPIED): Phase.SWITCHING,  # the copy was faster than the cancel
    (Phase.ABORTING, Event.ABORTED): Phase.FAILED,  # or CANCELLED, see _ending
    (Phase.SWITCHING, Event.STARTED): Phase.SETTLING,
    (Phase.SWITCHING, Event.START_LOST): Phase.LOST_NEEDS_FENCE,
    (Phase.SWITCHING, Event.START_FAILED): Phase.SETTLING,  # and then FAILED, see _ending
    (Phase.SWITCHING, Event.START_MISSED): Phase.RETURNING,
    (Phase.SWITCHING, Event.TAKEN_BACK): Phase.RETURNING,
    (Phase.RETURNING, Event.STARTED): Phase.FAILED,  # the source runs it again
    (Phase.RETURNING, Event.START_LOST): Phase.LOST_NEEDS_FENCE,
    (Phase.SETTLING, Event.CLEANED): Phase.SUCCEEDED,
    (Phase.SETTLING, Event.CAME_BACK): Phase.SUCCEEDED,
    (Phase.COPYING, Event.IN_STEP): Phase.MIRRORING,
    (Phase.MIRRORING, Event.BROKEN): Phase.PREPARING,  # and copied anew
    (Phase.MIRRORING, Event.CANCEL): Phase.ABORTING,
    (Phase.MIRRORING, Event.PROMOTED): Phase.SWITCHING,
    (Phase.SWITCHING, Event.TOOK_OVER): Phase.SUCCEEDED,
    (Phase.SWITCHING, Event.WOULD_NOT_RUN): Phase.FAILED,
    **{
        (phase, Event.SETTLED): Phase.FAILED
        for phase in Phase
        if not phase.final and phase not in (Phase.UNDER_WAY, Phase.FENCING)
    },
}


def order_epoch(operation: Operation) -> int:
    """The epoch that orders carry now: the new one from the switch on."""
    return operation.epoch_after or operation.epoch_before


def decides_here(operation: Operation) -> bool:
    """Of a move between domains, the one whose VM it is decides, and the other follows: that of the
    destination while the VM is to start there, that of the source before and after."""
    if is_abroad(operation.source):
        return operation.phase is Phase.SWITCHING
    return not (is_abroad(operation.destination) and operation.phase is Phase.SWITCHING)


def destination_silent(view: View, operation: Operation, now_ms: int) -> Decision:
    """The destination's lease lapsed. Before the copy that ends the move; while going back it
    counts as the destination's word, for it has been given nothing that could run."""
    if not decides_here(operation):
        return Decision()
    if operation.phase is Phase.ABORTING and operation.destination not in operation.acks:
        acked = replace(operation, acks=(*operation.acks, operation.destination))
        if operation.source in acked.acks:
            return advance(view, acked, Event.ABORTED, now_ms)
        return Decision((put(acked),))
    if (operation.phase, Event.DESTINATION_SILENT) in TRANSITIONS:
        return advance(view, operation, Event.DESTINATION_SILENT, now_ms)
    return Decision()


def advance(
    view: View, operation: Operation, event: Event, now_ms: int, outcome: MoveOutcome | None = None
) -> Decision:
    """One step along the table, with what it does to the VM's record."""
    phase = _ending(operation, TRANSITIONS[operation.phase, event])
    moved = replace(
        operation,
        phase=phase,
        acks=(),
        phases=(*_lasting(operation, event, now_ms), PhaseTime(phase, now_ms)),
        ended_ms=now_ms if phase.final else 0,
        failure=failure_of(operation, event, outcome),
        port=0 if phase.final else operation.port,
    )
    record = view.vm(operation.vm_id)
    if record is None:  # none is meant, or it is gone while its move waited
        return Decision((put(moved),), moved)
    if operation.move_kind is MoveKind.STANDBY and event not in _OF_A_PROMOTED:
        return Decision((put(_kept(moved, event, outcome)),), moved)
    if event is Event.TURN:
        moving = replace(record, operation_id=moved.operation_id)
        return Decision((put(moved), Change(keys.vm(record.vm.vm_id), moving)), moved)
    if event is Event.COPIED and outcome is not None:
        return _switch(moved, record, outcome, now_ms)
    if event in (Event.START_MISSED, Event.TAKEN_BACK):
        return _return(moved, record, now_ms)
    if event is Event.PROMOTED:
        promoted = replace(moved, epoch_after=operation.epoch_before + 1)
        return _owner_changes(promoted, record, now_ms)
    if event in _STARTED and outcome is not None:
        return _started(moved, record, outcome, now_ms)
    if event is Event.START_LOST:
        return _lost(view, moved, record, now_ms)
    moved = _noted(moved, event, outcome)
    changes = [put(moved)]
    if phase.final and record.operation_id == moved.operation_id:
        changes += released(record, now_ms)
    return Decision(tuple(changes), moved)


# What a standby has to do with the VM's record: only from its promotion on.
_STARTED = (Event.STARTED, Event.START_FAILED, Event.TOOK_OVER, Event.WOULD_NOT_RUN)
_OF_A_PROMOTED = (Event.PROMOTED, Event.START_LOST, *_STARTED)


def _noted(moved: Operation, event: Event, outcome: MoveOutcome | None) -> Operation:
    """What an answer has to say that changes nothing else."""
    if event is Event.PREPARED and outcome is not None:
        moved = replace(moved, gated=outcome.gated, port=outcome.port)
        return _receipt(moved, policy_hash_after=outcome.policy_hash)
    if event is Event.CLEANED and outcome is not None and outcome.bytes:
        return copied(moved, outcome)  # one that was held had no last figures at the switch
    return moved


def _kept(standby: Operation, event: Event, outcome: MoveOutcome | None) -> Operation:
    """What its next orders need; in the end, nothing."""
    if event is Event.PREPARED and outcome is not None:
        return replace(standby, port=outcome.port)
    if event is Event.IN_STEP and outcome is not None:
        return copied(replace(standby, definition=outcome.definition), outcome)
    return replace(standby, definition=b"") if standby.phase.final else standby


def released(record: VmRecord, now_ms: int) -> tuple[Change, ...]:
    """A VM whose move has ended. What another domain has now leaves a tombstone, which says where
    it went."""
    vm_id, location = record.vm.vm_id, record.location
    free = replace(record, operation_id="")
    if not is_abroad(location.server_id):
        return (Change(keys.vm(vm_id), free),)
    grave = Tombstone(vm_id, location.epoch, now_ms, free)
    return Change(keys.vm(vm_id), None), Change(keys.gone(vm_id), grave)


def _lasting(operation: Operation, event: Event, now_ms: int) -> tuple[PhaseTime, ...]:
    """Whoever had its turn at once has never waited. A standby that is copied anew begins anew: it
    may live for years."""
    entered = operation.phases
    if event is Event.BROKEN:
        return ()
    if operation.phase is Phase.QUEUED and entered[-1].entered_ms == now_ms:
        return entered[:-1]
    return entered


def overtaken(operation: Operation, epoch: int, now_ms: int) -> Change:
    """The VM has an owner of a later epoch: a restored ledger had forgotten how this move ended."""
    text = f"the VM is at epoch {epoch} already: the ledger was restored from before that"
    ended = replace(
        operation,
        phase=Phase.FAILED,
        phases=(*operation.phases, PhaseTime(Phase.FAILED, now_ms)),
        ended_ms=now_ms,
        failure=Failure(Reason.STALE_EPOCH.name, text),
    )
    return put(ended)


def _ending(operation: Operation, phase: Phase) -> Phase:
    """A failure from after the switch is told when the source has been cleaned up, too."""
    if phase is Phase.SUCCEEDED and operation.failure is not None and operation.vm_id:
        return Phase.FAILED
    cancelled = operation.cancel_requested and phase is Phase.FAILED
    return Phase.CANCELLED if cancelled else phase


def failure_of(operation: Operation, event: Event, outcome: MoveOutcome | None) -> Failure | None:
    if event is Event.CANCEL:
        return Failure(Reason.CANCELLED_BY_USER.name, "cancelled before the switch")
    if event is Event.DESTINATION_SILENT:
        text = f"the destination {operation.destination} went silent"
        return Failure(Reason.SESSION_LOST.name, text)
    if event in (Event.COPIED, Event.CAME_BACK, Event.IN_STEP):
        return None  # whatever was said before, the move goes forward now
    if event is Event.ABORTED and operation.failure is not None:
        return operation.failure  # why it went back, not what went wrong on the way
    if outcome is not None and outcome.failure is not None:
        return outcome.failure
    if event is Event.START_MISSED:
        text = f"the destination {operation.destination} does not have the VM any more"
        return Failure(Reason.WOULD_NOT_START.name, text)
    return operation.failure


def _switch(operation: Operation, record: VmRecord, outcome: MoveOutcome, now_ms: int) -> Decision:
    """The compare-and-set at the heart: new owner, epoch + 1, while neither side runs."""
    epoch = operation.epoch_before + 1
    held = outcome.truth is HostedState.HELD
    switched = copied(replace(operation, epoch_after=epoch, held=held, port=0), outcome)
    switched = _receipt(switched, policy_hash_before=outcome.policy_hash)
    return _owner_changes(switched, record, now_ms)


def _owner_changes(switched: Operation, record: VmRecord, now_ms: int) -> Decision:
    location = Location(switched.destination, VmState.INCOMING, switched.epoch_after)
    bound = switched.operation_id
    owned = replace(record, location=location, changed_ms=now_ms, operation_id=bound)
    return Decision((put(switched), Change(keys.vm(record.vm.vm_id), owned)), switched)


def _return(operation: Operation, record: VmRecord, now_ms: int) -> Decision:
    """The destination has nothing and will not have it, or is off: back to the source, which still
    holds the VM. Another change of owner, so another epoch."""
    epoch = operation.epoch_after + 1
    location = Location(operation.source, VmState.INCOMING, epoch)
    owned = replace(record, location=location, changed_ms=now_ms)
    returned = replace(operation, epoch_after=epoch)
    return Decision((put(returned), Change(keys.vm(record.vm.vm_id), owned)), returned)


def _started(operation: Operation, record: VmRecord, outcome: MoveOutcome, now_ms: int) -> Decision:
    settled = _receipt(
        operation,
        total_ms=float(now_ms - _entered(operation, Phase.PREPARING)),
        switch_ms=float(now_ms - _entered(operation, Phase.SWITCHING)),
        policy_hash_after=outcome.policy_hash or operation.receipt.policy_hash_after,
    )
    off = operation.move_kind is MoveKind.COLD or not outcome.ok
    state = VmState.SHUT_OFF if off else VmState.RUNNING
    location = replace(record.location, state=state)
    running = replace(record, location=location, changed_ms=now_ms)
    if settled.phase.final:  # nothing is left to be done: it went back, or was a standby
        settled = replace(settled, definition=b"")
        running = replace(running, operation_id="")
    return Decision((put(settled), Change(keys.vm(record.vm.vm_id), running)), settled)


def _entered(operation: Operation, phase: Phase) -> int:
    return next(p.entered_ms for p in operation.phases if p.phase is phase)


def _lost(view: View, operation: Operation, record: VmRecord, now_ms: int) -> Decision:
    """Neither side has it, and it may have run since: nobody starts it until a person decides."""
    location = replace(record.location, state=VmState.LOST_NEEDS_FENCE)
    lost = replace(record, location=location, changed_ms=now_ms)
    alarm = Alarm(
        Reason.NEEDS_FENCE,
        f"VM {record.vm.vm_id} was lost between {operation.source} and {operation.destination}",
        Severity.CRITICAL,
        record.vm.vm_id,
        operation.destination,
        {"operation": operation.operation_id, "epoch": str(location.epoch)},
    )
    nowhere = released(lost, now_ms)
    return Decision((put(operation), *nowhere, *alarm.changes(view, now_ms)), operation)


_OF_A_COPY = (
    *("downtime_ms", "bytes", "disk_bytes", "iterations", "slowed_percent", "suspended"),
    *("bytes_per_second", "dirty_bytes_per_second"),
)


def copied(operation: Operation, outcome: MoveOutcome) -> Operation:
    """With what the source says of its copy in the receipt."""
    return _receipt(operation, **{name: getattr(outcome, name) for name in _OF_A_COPY})


def _receipt(operation: Operation, **values: object) -> Operation:
    return replace(operation, receipt=replace(operation.receipt, **values))  # type: ignore[arg-type]


def put(operation: Operation) -> Change:
    return Change(keys.operation(operation.operation_id), operation)
