"""5.1, VM Configuration Registration: create the VM's profile, or update it if it exists (A13).

A VM that is known elsewhere has arrived. If a move brings it, the move speaks for it. If somebody
moved it by hand, the old owner is asked before anything is believed, and so is the new one:
`Reply.confirm` tells the caller whom to ask, and the command comes back with `Evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from common.errors import Reason, Refusal
from common.model.operation import Failure, HostedState
from common.model.revision import generation
from common.model.server import Liveness, Server, Severity
from common.model.value import value
from common.model.vm import Location, Vm, VmRecord, VmState
from vcenter.core import dispute, keys, standby
from vcenter.core.command import Alarm, Decision
from vcenter.core.configuration import (
    claim_conflict,
    merged,
    refuse_if_not_enforceable,
    resolved,
)
from vcenter.core.movement import overtaken
from vcenter.core.table import Change
from vcenter.core.view import View


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    ARRIVED = "arrived"
    INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What both hypervisors said of the VM while the ledger was at `epoch`."""

    epoch: int
    old_owner: HostedState
    claimant: HostedState


@dataclass(frozen=True, slots=True)
class Confirm:
    """Ask these two, then submit again."""

    old_owner: str
    epoch: int


@value
class Reply:
    """`epoch`: the VM's then, if there is an entry; else 0."""

    outcome: Outcome | None = None
    epoch: int = 0
    came_from: Server | None = None
    came_from_epoch: int = 0
    confirm: Confirm | None = None


@value
class Register:
    """`server_id` is the caller's, from its certificate. `epoch` 0: the caller knows of none."""

    server_id: str
    vm: Vm
    state: VmState
    epoch: int = 0
    evidence: Evidence | None = None

    def knowing(self, evidence: Evidence) -> Register:
        return replace(self, evidence=evidence)

    def decide(self, view: View, now_ms: int) -> Decision:
        server = view.must_server(self.server_id)
        record = view.vm(self.vm.vm_id)
        if record is None:
            return self._first_seen(view, server, now_ms)
        if record.location.server_id == self.server_id:
            return self._update(view, server, record, now_ms)
        return self._known_elsewhere(view, server, record, now_ms)

    # ---- nobody owns it ----

    def _first_seen(self, view: View, server: Server, now_ms: int) -> Decision:
        grave = view.tombstone(self.vm.vm_id)
        if grave is not None and 0 < self.epoch <= grave.epoch:
            raise self._stale(grave.epoch)
        if self.state is VmState.INCOMING:
            return Decision(reply=Reply(Outcome.INCOMING))
        epoch = max(self.epoch, grave.epoch + 1 if grave else 1)
        known = grave.last.vm if grave else None
        origin = view.server(grave.last.location.server_id) if grave else None
        if origin is not None and origin.server_id == server.server_id:
            origin = None
        outcome = Outcome.ARRIVED if origin else Outcome.CREATED
        reply = Reply(outcome, 0, origin, grave.epoch if grave and origin else 0)
        decision = self._write(view, server, merged(self.vm, known), epoch, reply, now_ms)
        if grave is None or decision.refusal is not None:
            return decision
        risen = Change(keys.gone(self.vm.vm_id), None)
        return replace(decision, changes=(*decision.changes, risen))

    # ---- the caller owns it ----

    def _update(self, view: View, server: Server, record: VmRecord, now_ms: int) -> Decision:
        held = record.location
        if self._outlives(server, record):
            return self._adopt(view, server, record, now_ms)
        if 0 < self.epoch < held.epoch:
            raise self._stale(held.epoch)
        if held.state is VmState.LOST_NEEDS_FENCE:
            raise Refusal(Reason.NEEDS_FENCE, f"VM {record.vm.vm_id} is lost; a person must decide")
        if self.state is VmState.INCOMING or record.operation_id:
            return Decision(reply=Reply(Outcome.UNCHANGED, held.epoch))
        epoch = max(self.epoch, held.epoch)
        vm = merged(self.vm, record.vm)
        reply = Reply(Outcome.UPDATED)
        return self._write(view, server, vm, epoch, reply, now_ms, record)

    # ---- somebody else owns it ----

    def _known_elsewhere(
        self, view: View, server: Server, record: VmRecord, now_ms: int
    ) -> Decision:
        held = record.location
        if self._outlives(server, record):
            return self._adopt(view, server, record, now_ms)
        origin = view.must_server(held.server_id)
        move = view.move_of(record)
        by_move = move is not None and move.destination == self.server_id
        # A move that waited in a restored ledger has begun anew, and had been over long ago: its
        # orders are void for the host that was made the owner then. What the hosts say decides.
        again = by_move and self.epoch > held.epoch
        if self.state is VmState.INCOMING or (by_move and not again):
            return Decision(reply=Reply(Outcome.INCOMING, held.epoch, origin, held.epoch))
        if 0 < self.epoch < held.epoch:
            raise self._stale(held.epoch)
        if self.state is VmState.SHUT_OFF or (move is not None and not again):
            raise self._not_owner(record)
        if self.evidence is None or self.evidence.epoch != held.epoch:
            return self._ask(origin, record)
        arrived = self._arrive(view, server, record, origin, self.evidence, now_ms)
        arrived = self._with_end_of_standby(view, record, arrived, now_ms)
        return self._with_end_of_move(view, record, arrived, now_ms)

    def _ask(self, origin: Server, record: VmRecord) -> Decision:
        if origin.liveness is not Liveness.ATTACHED:
            raise self._owner_silent(record)
        return Decision(reply=Reply(confirm=Confirm(origin.server_id, record.location.epoch)))

    def _arrive(
        self,
        view: View,
        server: Server,
        record: VmRecord,
        origin: Server,
        evidence: Evidence,
        now_ms: int,
    ) -> Decision:
        if evidence.old_owner is HostedState.UNKNOWN:
            raise self._owner_silent(record)
        if evidence.old_owner is not HostedState.ABSENT:  # HELD: it could run there again
            return self._two_places(view, record, now_ms)
        if evidence.claimant is not HostedState.RUNNING:
            raise Refusal(Reason.NOT_RUNNING, f"VM {self.vm.vm_id} does not run on the caller")
        epoch = max(self.epoch, record.location.epoch + 1)
        reply = Reply(Outcome.ARRIVED, 0, origin, record.location.epoch)
        vm = merged(self.vm, record.vm)
        return self._write(view, server, vm, epoch, reply, now_ms, record)

    # ---- the ledger is older than what it once said ----

    def _outlives(self, server: Server, record: VmRecord) -> bool:
        """The entry is from a restored backup (nothing has changed it since, while the caller has
        attached since), and the caller knows of a later owner: itself. In a ledger that was never
        restored a higher epoch proves nothing, and both hosts are asked as ever."""
        backed_up = record.revision > 0 and generation(record.revision) < generation(
            server.revision
        )
        return backed_up and self.epoch > record.location.epoch

    def _adopt(self, view: View, server: Server, record: VmRecord, now_ms: int) -> Decision:
        """A host has an epoch only from a ledger that had made it the owner: what the backup has
        forgotten is true, and whoever it takes for the owner gave the VM away. A move that it
        remembers is over."""
        if self.state is VmState.INCOMING:
            return Decision(reply=Reply(Outcome.INCOMING, record.location.epoch))
        elsewhere = record.location.server_id != self.server_id
        origin = view.server(record.location.server_id) if elsewhere else None
        outcome = Outcome.ARRIVED if elsewhere else Outcome.UPDATED
        reply = Reply(outcome, 0, origin, record.location.epoch if elsewhere else 0)
        vm = merged(self.vm, record.vm)
        decision = self._write(view, server, vm, self.epoch, reply, now_ms, record)
        return self._with_end_of_move(view, record, decision, now_ms)

    def _with_end_of_move(
        self, view: View, record: VmRecord, decision: Decision, now_ms: int
    ) -> Decision:
        """A change of owner ends a move that the entry still knew of."""
        move = view.move_of(record)
        epoch = decision.reply.epoch if decision.reply is not None else 0
        if move is None or move.phase.final or decision.refusal is not None or not epoch:
            return decision
        ended = overtaken(move, epoch, now_ms)
        return replace(decision, changes=(*decision.changes, ended))

    def _with_end_of_standby(
        self, view: View, record: VmRecord, decision: Decision, now_ms: int
    ) -> Decision:
        """Its disks are not mirrored from where the VM is now."""
        if decision.refusal is not None or decision.reply is None or not decision.reply.epoch:
            return decision
        why = Failure(Reason.NOT_OWNER.name, f"the VM was moved by hand, to {self.server_id}")
        ended = standby.end_with(view, record.vm.vm_id, why, now_ms)
        return replace(decision, changes=(*decision.changes, *ended.changes))

    # ---- writing it down ----

    def _write(
        self,
        view: View,
        server: Server,
        vm: Vm,
        epoch: int,
        reply: Reply,
        now_ms: int,
        before: VmRecord | None = None,
    ) -> Decision:
        vm = resolved(view, vm)
        if self.vm.profile is not None:
            refuse_if_not_enforceable(view, vm, server)
        conflict = claim_conflict(view, vm, self.server_id, now_ms)
        if conflict is not None:
            return conflict.decision(view, now_ms)
        location = Location(self.server_id, self.state, epoch)
        if before is not None and before.vm == vm and before.location == location:
            return Decision(reply=replace(reply, outcome=Outcome.UNCHANGED, epoch=epoch))
        given = self._hands(view, vm, reply, before)
        handed = dispute.passed(view, given, vm.vm_id, self.server_id, now_ms)
        if handed.refusal is not None:
            return handed
        record = VmRecord(vm, location, now_ms)
        told = Reply(reply.outcome, epoch, reply.came_from, reply.came_from_epoch)
        return Decision((Change(keys.vm(vm.vm_id), record), *handed.changes), told)

    def _hands(
        self, view: View, vm: Vm, reply: Reply, before: VmRecord | None
    ) -> Iterator[dispute.Hand]:
        if reply.came_from is not None:
            yield dispute.Hand(vm.vm_id, reply.came_from.server_id, self.server_id)
        yield from dispute.hands(view, vm, before)

    # ---- refusals ----

    def _stale(self, current: int) -> Refusal:
        return Refusal(
            Reason.STALE_EPOCH,
            f"VM {self.vm.vm_id} is at epoch {current}, not {self.epoch}",
            evidence={"epoch": str(current)},
        )

    def _is_anothers(self, record: VmRecord) -> bool:
        """Another tenant's: then where it is stays untold."""
        return self.vm.tenant not in ("", record.vm.tenant)

    def _tenants(self, record: VmRecord) -> dict[str, str]:
        if not self._is_anothers(record):
            return {}
        return {"owner_tenant": record.vm.tenant, "claimant_tenant": self.vm.tenant}

    def _not_owner(self, record: VmRecord) -> Refusal:
        if self._is_anothers(record):
            return Refusal(Reason.NOT_OWNER, Reason.NOT_OWNER.explanation)
        owner = record.location.server_id
        return Refusal(
            Reason.NOT_OWNER,
            f"VM {record.vm.vm_id} belongs to vServer {owner}",
            evidence={"owner": owner, "epoch": str(record.location.epoch)},
        )

    def _owner_silent(self, record: VmRecord) -> Refusal:
        if self._is_anothers(record):
            text = Reason.OWNER_SILENT.explanation
            return Refusal(Reason.OWNER_SILENT, text, retry_after=2.0)
        owner = record.location.server_id
        return Refusal(
            Reason.OWNER_SILENT,
            f"vServer {owner} owns VM {record.vm.vm_id} and cannot be asked",
            evidence={"owner": owner},
            retry_after=2.0,
        )

    def _two_places(self, view: View, record: VmRecord, now_ms: int) -> Decision:
        owner = record.location.server_id
        alarm = Alarm(
            Reason.RUNNING_IN_TWO_PLACES,
            f"VM {record.vm.vm_id} runs on {owner} and on {self.server_id}",
            Severity.CRITICAL,
            record.vm.vm_id,
            self.server_id,
            {
                "owner": owner,
                "claimant": self.server_id,
                "epoch": str(record.location.epoch),
            }
            | self._tenants(record),
            withheld=self._is_anothers(record),
        )
        return alarm.decision(view, now_ms)
