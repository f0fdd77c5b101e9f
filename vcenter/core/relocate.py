"""5.5, VM Relocation: plan a move, and start it (A17). What becomes of it is in `movement`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.errors import Reason, Refusal
from common.model.operation import Operation, Phase, PhaseTime
from common.model.server import Server
from common.model.vm import VmRecord
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.placement import Objection, least_loaded, movable, objections
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Plan:
    """A destination, or every reason why there is none."""

    destination: str
    objections: tuple[Objection, ...]


def plan(view: View, vm_id: str, destination: str) -> Plan:
    """The dry run: the same code that decides the move."""
    record = view.must_vm(vm_id)
    if destination:
        server = view.must_server(destination)
        return Plan(destination, tuple(objections(view, record, server)))
    return _chosen(view, record)


def _chosen(view: View, record: VmRecord) -> Plan:
    basic = tuple(movable(view, record))
    if basic:
        return Plan("", basic)
    others = [
        s for s in view.all(Server, indexes.SERVERS) if s.server_id != record.location.server_id
    ]
    against = {s.server_id: objections(view, record, s) for s in others}
    best = least_loaded(view, [s for s in others if not against[s.server_id]])
    if best is not None:
        return Plan(best.server_id, ())
    found = [o for each in against.values() for o in each]
    nowhere = Objection(Reason.NO_DESTINATION, "no vServer can take the VM")
    return Plan("", (nowhere, *found))


@dataclass(frozen=True, slots=True)
class Relocate:
    """Starts a move of one VM. `epoch` 0: whatever it is now."""

    operation_id: str
    vm_id: str
    destination: str
    requested_by: str
    epoch: int = 0

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        if self.epoch and self.epoch != record.location.epoch:
            raise Refusal(
                Reason.STALE_EPOCH,
                f"VM {self.vm_id} is at epoch {record.location.epoch}, not {self.epoch}",
                evidence={"epoch": str(record.location.epoch)},
            )
        chosen = plan(view, self.vm_id, self.destination)
        if chosen.objections:
            raise _refused(chosen.objections)
        operation = Operation(
            operation_id=self.operation_id,
            kind="relocate",
            vm_id=self.vm_id,
            source=record.location.server_id,
            destination=chosen.destination,
            phase=Phase.PREPARING,
            requested_by=self.requested_by,
            created_ms=now_ms,
            epoch_before=record.location.epoch,
            phases=(PhaseTime(Phase.PREPARING, now_ms),),
        )
        moving = replace(record, operation_id=self.operation_id)
        return Decision(
            (
                Change(keys.operation(self.operation_id), operation),
                Change(keys.vm(self.vm_id), moving),
            ),
            operation,
        )


def _refused(found: tuple[Objection, ...]) -> Refusal:
    """The first objection gives the reason; all of them are in the text and the evidence."""
    evidence = {f"{n}.{o.reason.name}": o.message for n, o in enumerate(found, start=1)}
    text = "; ".join(o.message for o in found)
    return Refusal(found[0].reason, text, evidence=evidence)
