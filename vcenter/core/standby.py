"""A standby: a copy of a VM's disks on another vServer, kept in step while the original runs (5.6).

It holds nothing of the VM's identity, and the VM lives as if it were not there: only its promotion
changes the owner, and that needs proof that the VM does not run where it was (I7), as everything
that is decided about a silent host does (`fence`). A copy that is not kept in step any more is
made anew; what cannot go on ends with a reason, and hosts clear up what no order wants
(docs/standby.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.errors import Reason, Refusal
from common.model.operation import (
    Failure,
    HostedState,
    MoveOutcome,
    MoveStep,
    Operation,
    Phase,
)
from common.model.server import Liveness, Severity
from common.model.vm import VmRecord
from vcenter.core.command import Alarm, Decision
from vcenter.core.fence import is_fenced
from vcenter.core.movement import Event, advance
from vcenter.core.twin import refuse_if_frozen
from vcenter.core.view import View


def heard(
    view: View, standby: Operation, server_id: str, outcome: MoveOutcome
) -> tuple[Operation, Event | None]:
    """What a host's answer changes, and the event that it is, if it is one."""
    if standby.phase is Phase.ABORTING:
        return _word_to_end(view, standby, server_id, outcome)
    return standby, _EVENTS.get((outcome.step, outcome.ok)) or _of_a_start(outcome)


_EVENTS = {
    (MoveStep.PREPARE, True): Event.PREPARED,
    (MoveStep.PREPARE, False): Event.PREPARE_FAILED,
    (MoveStep.COPY, True): Event.IN_STEP,
    (MoveStep.COPY, False): Event.COPY_FAILED,
    (MoveStep.MIRROR, False): Event.BROKEN,
    (MoveStep.START, True): Event.TOOK_OVER,
}


def _of_a_start(outcome: MoveOutcome) -> Event | None:
    """One that failed is tried again, unless the VM is there and would not run, or neither it nor
    its copy is: it was started, and is gone since."""
    if outcome.step is not MoveStep.START or outcome.failure is None:
        return None
    return {
        (HostedState.SHUT_OFF, Reason.WOULD_NOT_START.name): Event.WOULD_NOT_RUN,
        (HostedState.ABSENT, Reason.NO_STANDBY.name): Event.START_LOST,
    }.get((outcome.truth, outcome.failure.reason))


def _word_to_end(
    view: View, standby: Operation, server_id: str, outcome: MoveOutcome
) -> tuple[Operation, Event | None]:
    if not outcome.ok or outcome.step not in (MoveStep.ABORT, MoveStep.CLEAN):
        return standby, None
    acked = replace(standby, acks=tuple(sorted({*standby.acks, server_id})))
    return acked, Event.ABORTED if _is_over(view, acked) else None


def _is_over(view: View, standby: Operation) -> bool:
    """Whoever can be asked has cleared up. Who is silent will when it is back, untold."""
    return all(
        host in standby.acks or not _is_attached(view, host)
        for host in (standby.source, standby.destination)
    )


def host_silent(view: View, standby: Operation, server_id: str, now_ms: int) -> Decision:
    """The lease of this host has lapsed. One that is in step stays: its copy may be needed now."""
    if server_id not in (standby.source, standby.destination):
        return Decision()
    if standby.phase is Phase.ABORTING:
        return over_at_once(view, Decision(reply=standby), now_ms)
    if server_id == standby.destination and standby.phase is Phase.PREPARING:
        gone = advance(view, standby, Event.DESTINATION_SILENT, now_ms)
        return over_at_once(view, gone, now_ms)
    return Decision()


def over_at_once(view: View, decision: Decision, now_ms: int) -> Decision:
    """A standby that ends, and no host is there to be told."""
    standby = decision.reply
    if not (standby.apart and standby.phase is Phase.ABORTING and _is_over(view, standby)):
        return decision
    return with_alarm(view, advance(view, standby, Event.ABORTED, now_ms), now_ms)


def end_with(view: View, vm_id: str, why: Failure, now_ms: int) -> Decision:
    """The VM is not where its disks are mirrored from any more: with that its standby goes."""
    standby = view.standby_of(vm_id)
    if standby is None:
        return Decision()
    return advance(view, replace(standby, failure=why), Event.SETTLED, now_ms)


def with_alarm(view: View, decision: Decision, now_ms: int) -> Decision:
    """With an alert, if a standby has ended and nobody had asked for that."""
    standby = decision.reply
    if not standby.apart or standby.phase is not Phase.FAILED or standby.epoch_after:
        return decision
    why = standby.failure.message if standby.failure is not None else "nobody says why"
    text = f"VM {standby.vm_id} has no standby on {standby.destination} any more: {why}"
    evidence = {"operation": standby.operation_id}
    alarm = Alarm(
        Reason.STANDBY_LOST,
        text,
        Severity.WARNING,
        standby.vm_id,
        standby.destination,
        evidence,
    )
    return replace(decision, changes=(*decision.changes, *alarm.changes(view, now_ms)))


# ---- promotion ----


@dataclass(frozen=True, slots=True)
class Promote:
    """Starts a standby. `evidence`: what the hosts that are attached say of the VM at `epoch`."""

    vm_id: str
    requested_by: str
    epoch: int = 0
    evidence: Mapping[str, HostedState] = field(default_factory=dict)

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        under_way = view.move_of(record)
        if under_way is not None and under_way.phase is Phase.SWITCHING and under_way.definition:
            return Decision(reply=under_way)  # it was asked for before
        refuse_if_frozen(view, record.vm)
        standby = promotable(view, record)
        if not self.epoch == record.location.epoch == standby.epoch_before:
            raise Refusal(Reason.STALE_EPOCH, f"VM {self.vm_id} has changed owner meanwhile")
        self._refuse_unless_proven(view, standby)
        return advance(view, standby, Event.PROMOTED, now_ms)

    def _refuse_unless_proven(self, view: View, standby: Operation) -> None:
        """By its owner, and by whoever has claimed to have it."""
        for host in sorted({standby.source, *self.evidence}):
            said = self.evidence.get(host, HostedState.UNKNOWN)
            evidence = {"server": host}
            if said is HostedState.UNKNOWN and not is_fenced(view, host):
                text = f"vServer {host} is neither fenced, nor answers for VM {self.vm_id}"
                raise Refusal(Reason.NEEDS_FENCE, text, evidence=evidence)
            if said not in (HostedState.UNKNOWN, HostedState.ABSENT, HostedState.SHUT_OFF):
                text = f"vServer {host} says that VM {self.vm_id} runs there, or could"
                raise Refusal(Reason.RUNNING_IN_TWO_PLACES, text, evidence=evidence)


def promotable(view: View, record: VmRecord) -> Operation:
    """Raises `Refusal` where there is no standby that is in step, or its host is silent."""
    vm_id = record.vm.vm_id
    standby = view.standby_of(vm_id)
    if standby is None:
        raise Refusal(Reason.NO_STANDBY, f"VM {vm_id} has no standby")
    if standby.phase is not Phase.MIRRORING:
        text = f"the standby of VM {vm_id} is {standby.phase}: its copy is not whole"
        raise Refusal(Reason.NO_STANDBY, text, evidence={"operation": standby.operation_id})
    if not _is_attached(view, standby.destination):
        raise Refusal(Reason.SERVER_SILENT, f"vServer {standby.destination} is silent")
    return standby


def _is_attached(view: View, server_id: str) -> bool:
    server = view.server(server_id)
    return server is not None and server.liveness is Liveness.ATTACHED
