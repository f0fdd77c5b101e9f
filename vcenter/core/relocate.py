"""5.5, VM Relocation: plan moves, and start them (A17): of one VM, a group, or a whole vServer.

A plan for several VMs places one after the other, each seeing what was promised to those before it.
It becomes the operation's parts, which hold those promises while they wait for their turn
(`queue`). What becomes of each move is in `movement`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.errors import Reason, Refusal
from common.model.operation import Operation, Phase, PhaseTime
from common.model.vm import VmRecord
from vcenter.core import indexes, keys
from vcenter.core.abroad import Abroad
from vcenter.core.command import Decision
from vcenter.core.forecast import Forecasts, Gauge
from vcenter.core.ids import derived_id
from vcenter.core.loads import Loads
from vcenter.core.overlay import Overlay
from vcenter.core.placement import Objection, kind_for
from vcenter.core.planning import Asked, Plan, Where, on_terms, plan
from vcenter.core.queue import Limits, give_turns
from vcenter.core.table import Change
from vcenter.core.view import View

SHOWN = 20  # objections in the text of a refusal; a plan shows all


@dataclass(frozen=True, slots=True)
class Relocate:
    """Starts a move of one VM, or queues it. `epoch` 0: whatever it is now. `gauges`: what hosts
    reported of VMs last, by vm_id; it is predicted from that what will come of the move. `abroad`:
    to another domain, as its vCenter has planned it. `name`: what the operation is called."""

    operation_id: str
    vm_id: str
    destination: str
    requested_by: str
    epoch: int = 0
    near: str = ""
    priority: int = 0
    limits: Limits = Limits()
    asked: Asked = Asked()
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    abroad: Abroad | None = None
    name: str = "relocate"

    def records(self, view: View) -> Iterable[VmRecord]:
        """What is to be moved."""
        return (view.must_vm(self.vm_id),)

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        if self.epoch and self.epoch != record.location.epoch:
            raise Refusal(
                Reason.STALE_EPOCH,
                f"VM {self.vm_id} is at epoch {record.location.epoch}, not {self.epoch}",
                evidence={"epoch": str(record.location.epoch)},
            )
        chosen = self.plan(view)
        if chosen.objections:
            raise _refused(chosen.objections)
        move = _queued(chosen, self.operation_id, self.requested_by, self.priority, now_ms)
        move = replace(move, kind=self.name, copy_disks=self.asked.copy_disks)
        move = replace(move, predicted=Forecasts(view, self.gauges).of_plan(chosen))
        changes = (*_known(self.abroad, view), _put(_to(self.abroad, move)))
        return _accepted(view, changes, self.limits, now_ms, self.operation_id)

    def plan(self, view: View) -> Plan:
        """The dry run."""
        record = view.must_vm(self.vm_id)
        where = Where(self.destination, self.near)
        return _placed(self, where, view, Loads(view), record)


@dataclass(frozen=True, slots=True)
class RelocateAll:
    """A group (`tenant` and `name`), or everything on a vServer, which is cordoned with it.

    All VMs are moved, or the command is refused with every objection to every VM.
    """

    operation_id: str
    requested_by: str
    tenant: str = ""
    name: str = ""
    server_id: str = ""
    where: Where = Where()
    priority: int = 0
    limits: Limits = Limits()
    asked: Asked = Asked()
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    abroad: Abroad | None = None

    def decide(self, view: View, now_ms: int) -> Decision:
        overlay = Overlay(view)
        changes = [*_known(self.abroad, view), *self._cordon(view)]
        overlay.add(changes)
        plans = self._place_all(overlay, now_ms)
        found = tuple(o for each in plans for o in each.objections)
        if found:
            raise _refused(found)
        forecasts = Forecasts(view, self.gauges)
        changes.append(_put(self._parent(now_ms)))
        for each in plans:
            predicted = forecasts.of_plan(each)
            changes.append(_put(replace(self._part(each, now_ms), predicted=predicted)))
        return _accepted(view, changes, self.limits, now_ms, self.operation_id)

    def plan(self, view: View, now_ms: int) -> list[Plan]:
        """The dry run."""
        overlay = Overlay(view)
        overlay.add(self._cordon(view))
        return self._place_all(overlay, now_ms)

    def _place_all(self, overlay: Overlay, now_ms: int) -> list[Plan]:
        """The big ones first: they are the hardest to place."""
        loads, plans = Loads(overlay), []
        records = sorted(
            self.records(overlay), key=lambda r: (-r.vm.resources.memory_mib, r.vm.vm_id)
        )
        for record in records:
            planned = _placed(self, self.where, overlay, loads, record)
            if _at_home(planned):
                continue
            plans.append(planned)
            if not planned.objections:
                loads.promise(planned.destination, record.vm.resources)
                overlay.add((_put(self._part(planned, now_ms)),))
        return plans

    def records(self, view: View) -> Iterator[VmRecord]:
        """What is leaving a vServer already is left to its move."""
        if not self.server_id:
            yield from view.all(VmRecord, indexes.in_group(self.tenant, self.name))
            return
        for record in view.all(VmRecord, indexes.owned_by(self.server_id)):
            moves = view.all(Operation, indexes.moving(record.vm.vm_id))
            if not any(move.source == self.server_id and not move.apart for move in moves):
                yield record

    def _cordon(self, view: View) -> list[Change]:
        if not self.server_id:
            if view.group(self.tenant, self.name) is None:
                raise Refusal(Reason.UNKNOWN_GROUP, f"no group {self.tenant}/{self.name}")
            return []
        server = view.must_server(self.server_id)
        if server.cordoned:
            return []
        return [Change(keys.server(self.server_id), replace(server, cordoned=True))]

    def _parent(self, now_ms: int) -> Operation:
        return Operation(
            operation_id=self.operation_id,
            kind="drain" if self.server_id else "relocate-group",
            vm_id="",
            source=self.server_id,
            destination=self.where.destination,
            phase=Phase.UNDER_WAY,
            requested_by=self.requested_by,
            created_ms=now_ms,
            epoch_before=0,
            phases=(PhaseTime(Phase.UNDER_WAY, now_ms),),
            priority=self.priority,
            subject=self.server_id or f"{self.tenant}/{self.name}",
            near=self.where.near,
            move_kind=self.asked.kind,
            copy_disks=self.asked.copy_disks,
            budget=self.asked.budget,
        )

    def _part(self, planned: Plan, now_ms: int) -> Operation:
        part_id = derived_id(self.operation_id, planned.record.vm.vm_id)
        move = _queued(planned, part_id, self.requested_by, self.priority, now_ms)
        move = replace(move, parent=self.operation_id, copy_disks=self.asked.copy_disks)
        return _to(self.abroad, move)


def _placed(
    command: Relocate | RelocateAll, where: Where, view: View, loads: Loads, record: VmRecord
) -> Plan:
    kind = kind_for(command.asked.kind, record)
    if command.abroad is not None:
        planned = command.abroad.plan(view, record, kind)
    else:
        planned = plan(view, loads, record, where, kind)
    gauge = command.gauges.get(record.vm.vm_id, Gauge())
    return on_terms(view, planned, command.asked, gauge.disks)


def _known(abroad: Abroad | None, view: View) -> Sequence[Change]:
    return abroad.known(view) if abroad is not None else ()


def _to(abroad: Abroad | None, move: Operation) -> Operation:
    return move if abroad is None else replace(move, on_behalf=abroad.on_behalf)


def _at_home(planned: Plan) -> bool:
    """It is where it should be: nothing to do, and nothing against it."""
    return {o.reason for o in planned.objections} == {Reason.SAME_SERVER}


def _queued(
    planned: Plan, operation_id: str, requested_by: str, priority: int, now_ms: int
) -> Operation:
    return Operation(
        operation_id=operation_id,
        kind="relocate",
        vm_id=planned.record.vm.vm_id,
        source=planned.record.location.server_id,
        destination=planned.destination,
        phase=Phase.QUEUED,
        requested_by=requested_by,
        created_ms=now_ms,
        epoch_before=planned.record.location.epoch,
        phases=(PhaseTime(Phase.QUEUED, now_ms),),
        priority=priority,
        move_kind=planned.kind,
        disks=planned.disks,
        budget=planned.budget,
    )


def _accepted(
    view: View, changes: Sequence[Change], limits: Limits, now_ms: int, operation_id: str
) -> Decision:
    """Whoever has its turn at once has it in the same revision."""
    overlay = Overlay(view)
    overlay.add(changes)
    turns = give_turns(overlay, limits, now_ms)
    overlay.add(turns)
    last = {change.key: change for change in (*changes, *turns)}
    return Decision(tuple(last.values()), overlay.must_operation(operation_id))


def _put(operation: Operation) -> Change:
    return Change(keys.operation(operation.operation_id), operation)


def _refused(found: tuple[Objection, ...]) -> Refusal:
    """The first objection gives the reason; the text and the evidence have as many as fit."""
    shown = found[:SHOWN]
    evidence = {f"{n}.{o.reason.name}": o.message for n, o in enumerate(shown, start=1)}
    more = f"; and {len(found) - SHOWN} more (--plan shows all)" if len(found) > SHOWN else ""
    text = "; ".join(o.message for o in shown)
    return Refusal(found[0].reason, text + more, evidence=evidence)
