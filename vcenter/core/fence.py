"""Fencing: what makes silence into proof, and what may then be decided about VMs (I7).

A silent vServer's VMs are started nowhere else. A fence (a device that says that the host is off,
or an operator's word, which is logged) changes that: from then until its agent attaches again the
host is known to run nothing. `Settle` gives such a VM, or one that a move has lost, to another
vServer at a new epoch, or forgets it. Nobody starts it by that: its new owner may. Only a source
that still holds the guest of a move, with its memory, is told to let it run on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from common.errors import Reason, Refusal
from common.model.operation import FENCE, Failure, HostedState, Operation, Phase, PhaseTime
from common.model.place import is_abroad
from common.model.server import Liveness, Server, Severity
from common.model.vm import Location, Tombstone, VmRecord, VmState
from vcenter.core import indexes, keys
from vcenter.core.command import Alarm, Decision
from vcenter.core.movement import Event, advance
from vcenter.core.table import Change
from vcenter.core.twin import refuse_if_frozen
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Fence:
    """Begins a fence, or records the operator's `word`. One that is under way already is it."""

    operation_id: str
    server_id: str
    requested_by: str
    word: str = ""
    has_device: bool = False

    def decide(self, view: View, now_ms: int) -> Decision:
        server = view.must_server(self.server_id)
        if server.liveness is Liveness.ATTACHED:
            text = f"vServer {self.server_id} is attached; only one that is silent is fenced"
            raise Refusal(Reason.SERVER_ATTACHED, text)
        if self.word:
            return self._by_word(view, server, now_ms)
        if not self.has_device:
            text = f"no fence device is configured for vServer {self.server_id}"
            raise Refusal(Reason.NO_FENCE, text)
        under_way = [f for f in fences(view) if f.source == self.server_id]
        if under_way:
            return Decision(reply=under_way[0])
        begun = self._operation(now_ms)
        return Decision((_put(begun),), begun)

    def _by_word(self, view: View, server: Server, now_ms: int) -> Decision:
        alarm = Alarm(
            Reason.FENCED_BY_WORD,
            f"{self.requested_by} says that vServer {self.server_id} is off: {self.word}",
            Severity.WARNING,
            server_id=self.server_id,
            evidence={"operation": self.operation_id},
        )
        ended = _ended(view, self._operation(now_ms), server, now_ms)
        changes = (*ended.changes, *alarm.changes(view, now_ms))
        return replace(ended, changes=changes)

    def _operation(self, now_ms: int) -> Operation:
        return Operation(
            operation_id=self.operation_id,
            kind=FENCE,
            vm_id="",
            source=self.server_id,
            destination="",
            phase=Phase.FENCING,
            requested_by=self.requested_by,
            created_ms=now_ms,
            epoch_before=0,
            phases=(PhaseTime(Phase.FENCING, now_ms),),
            subject=self.server_id,
        )


@dataclass(frozen=True, slots=True)
class FenceAnswered:
    """What came of the device. `failure` "": it says that the host is off."""

    operation_id: str
    failure: str = ""

    def decide(self, view: View, now_ms: int) -> Decision:
        fence = view.operation(self.operation_id)
        if fence is None or fence.phase is not Phase.FENCING:
            return Decision()
        if not self.failure:
            return _ended(view, fence, view.must_server(fence.source), now_ms)
        failed = replace(fence, failure=Failure(Reason.FENCE_FAILED.name, self.failure))
        return advance(view, failed, Event.NOT_FENCED, now_ms)


def fences(view: View) -> list[Operation]:
    """Those under way."""
    return [f for f in view.all(Operation, indexes.ACTIVE) if f.phase is Phase.FENCING]


def _ended(view: View, fence: Operation, server: Server, now_ms: int) -> Decision:
    fenced = replace(server, liveness=Liveness.SILENT, fenced_ms=now_ms)
    ended = advance(view, fence, Event.FENCED, now_ms)
    return replace(ended, changes=(*ended.changes, Change(keys.server(server.server_id), fenced)))


# ---- and then ----


@dataclass(frozen=True, slots=True)
class Settle:
    """`server_id` "": the VM is forgotten. `evidence`: what the hosts that are attached say of it,
    asked for the VM at `epoch`."""

    vm_id: str
    server_id: str
    requested_by: str
    epoch: int = 0
    evidence: Mapping[str, HostedState] = field(default_factory=dict)

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        if self.server_id and view.must_server(self.server_id).liveness is not Liveness.ATTACHED:
            raise Refusal(Reason.SERVER_SILENT, f"vServer {self.server_id} is silent")
        if self.server_id:
            refuse_if_frozen(view, record.vm)
        if self.epoch != record.location.epoch:
            raise Refusal(Reason.STALE_EPOCH, f"VM {self.vm_id} has changed owner meanwhile")
        if not needs_settling(view, record):
            text = f"VM {self.vm_id} is with {record.location.server_id}, which is attached"
            raise Refusal(Reason.NOT_LOST, text)
        self._refuse_unless_proven(view, record)
        return self._taken_back(view, record, now_ms) or self._settled(view, record, now_ms)

    def _refuse_unless_proven(self, view: View, record: VmRecord) -> None:
        for host in sorted(suspects(view, record) - {self.server_id}):
            said = self.evidence.get(host, HostedState.UNKNOWN)
            if said is HostedState.RUNNING:
                text = f"vServer {host} says that VM {self.vm_id} runs there, or could"
                raise Refusal(Reason.RUNNING_IN_TWO_PLACES, text, evidence={"server": host})
            if said is HostedState.UNKNOWN and not is_fenced(view, host):
                text = f"vServer {host} may run VM {self.vm_id}: it is neither fenced nor answers"
                raise Refusal(Reason.NEEDS_FENCE, text, evidence={"server": host})

    def _taken_back(self, view: View, record: VmRecord, now_ms: int) -> Decision | None:
        """A source that holds the guest with its memory, and is its owner again, is told to let it
        run: the move goes back, as it does when its destination says that it lost it."""
        move = view.work_on(record)
        holds = self.evidence.get(self.server_id) is HostedState.HELD
        if move is None or not holds or not (move.held and move.source == self.server_id):
            return None
        if move.phase is not Phase.SWITCHING or is_abroad(move.destination):
            return None
        text = f"settled by {self.requested_by}: back to {self.server_id}"
        back = replace(move, failure=Failure(Reason.NEEDS_FENCE.name, text))
        decision = advance(view, back, Event.TAKEN_BACK, now_ms)
        return replace(
            decision, reply=Location(move.source, VmState.INCOMING, move.epoch_after + 1)
        )

    def _settled(self, view: View, record: VmRecord, now_ms: int) -> Decision:
        changes = list(self._end_of_move(view, record, now_ms))
        epoch = record.location.epoch + 1
        if self.server_id:
            runs = self.evidence.get(self.server_id) is HostedState.RUNNING
            state = VmState.RUNNING if runs else VmState.SHUT_OFF
            location = Location(self.server_id, state, epoch)
            owned = replace(record, location=location, changed_ms=now_ms, operation_id="")
            changes.append(Change(keys.vm(self.vm_id), owned))
            return Decision(tuple(changes), location)
        last = replace(record, operation_id="")
        changes.append(Change(keys.vm(self.vm_id), None))
        grave = Tombstone(self.vm_id, epoch, now_ms, last)
        changes.append(Change(keys.gone(self.vm_id), grave))
        return Decision(tuple(changes), Location("", VmState.SHUT_OFF, epoch))

    def _end_of_move(self, view: View, record: VmRecord, now_ms: int) -> Iterator[Change]:
        """A move that was under way when its host died, or that waits, is over."""
        for move in list(view.all(Operation, indexes.moving(self.vm_id))):
            text = f"settled by {self.requested_by}: {self.server_id or 'forgotten'}"
            failed = replace(move, failure=Failure(Reason.NEEDS_FENCE.name, text))
            yield advance(view, failed, Event.SETTLED, now_ms).changes[0]


def needs_settling(view: View, record: VmRecord) -> bool:
    if record.location.state is VmState.LOST_NEEDS_FENCE:
        return True
    owner = view.server(record.location.server_id)
    return owner is None or owner.liveness is not Liveness.ATTACHED


def suspects(view: View, record: VmRecord) -> set[str]:
    """Every vServer that could run the VM: its owner, and both ends of the move that is under way,
    or that has lost it. One of another domain that gave it up for good cannot."""
    hosts = {record.location.server_id}
    for move in suspected(view, record):
        if move.phase is not Phase.QUEUED and not move.apart:
            hosts |= {move.source, move.destination}
        if is_abroad(move.source) and move.epoch_after and not move.held:
            hosts.discard(move.source)
    return hosts


def suspected(view: View, record: VmRecord) -> list[Operation]:
    """The move that is under way, and those that have lost the VM."""
    moves = list(view.all(Operation, indexes.moving(record.vm.vm_id)))
    if record.location.state is VmState.LOST_NEEDS_FENCE:
        moves += view.all(Operation, indexes.lost(record.vm.vm_id))
    return moves


def is_fenced(view: View, server_id: str) -> bool:
    server = view.server(server_id)
    return server is not None and server.fenced_ms > 0 and server.liveness is Liveness.SILENT


def _put(operation: Operation) -> Change:
    return Change(keys.operation(operation.operation_id), operation)
