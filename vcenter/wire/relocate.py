"""Relocate on the wire: one VM, a group, or a whole vServer; planned, or started."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.codec.checker import Checker
from common.codec.enums import MOVE_KIND
from common.codec.manner import from_budget, to_disks
from common.codec.operation import to_operation, to_prediction
from common.errors import Reason, Refusal
from common.model.identity import parse_name, parse_vm_id
from common.model.operation import MoveKind, Operation, Prediction
from common.model.place import is_abroad, parse_place, seen_from
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.forecast import Forecasts
from vcenter.core.planning import Asked, Plan, Where
from vcenter.core.relocate import Relocate, RelocateAll
from vcenter.wire.caller import Caller
from vcenter.wire.context import Parts
from vcenter.wire.sight import check_vm, told

MAX_PRIORITY = 100
MAX_PLACE = 255


async def serve(parts: Parts, request: pb.RelocateRequest, caller: Caller) -> pb.RelocateResponse:
    command = _read(parts, request, caller)
    return await carry_out(parts, command, caller, plan_only=request.plan_only)


async def carry_out(
    parts: Parts, command: Relocate | RelocateAll, caller: Caller, *, plan_only: bool
) -> pb.RelocateResponse:
    """Planned, or accepted; the caller may do it, or it is refused."""
    _check(parts, command, caller)
    command = await _arranged(parts, _gauged(parts, command), caller)
    if plan_only:
        return _planned(parts, command, caller)
    operation: Operation = (await parts.ledger.submit(command)).reply
    return pb.RelocateResponse(operation=to_operation(operation), destination=operation.destination)


def _read(parts: Parts, request: pb.RelocateRequest, caller: Caller) -> Relocate | RelocateAll:
    check = Checker()
    subject = _Subject.read(check, request)
    if request.destination:
        check.parse("destination", parse_place, request.destination, "")
    check.require(not (request.destination and request.near), "near", "not with a destination")
    check.require(len(request.near) <= MAX_PLACE, "near", f"at most {MAX_PLACE} characters")
    check.require(
        abs(request.priority) <= MAX_PRIORITY, "priority", f"-{MAX_PRIORITY}..{MAX_PRIORITY}"
    )
    check.require(bool(subject.vm_id) or not request.epoch, "epoch", "of one VM only")
    kind = MOVE_KIND.read(check, "kind", request.kind, MoveKind.LIVE)
    check.require(kind is not MoveKind.STANDBY, "kind", "a standby is asked for by Replicate")
    check.require(kind is not MoveKind.RESTART, "kind", "of a VM that runs, COLD is a restart")
    asked = Asked(kind, request.copy_disks, from_budget(check, request.budget))
    check.done()
    destination = seen_from(parts.domain, request.destination)
    if subject.vm_id:
        return Relocate(
            parts.new_id(),
            subject.vm_id,
            destination,
            str(caller),
            epoch=request.epoch,
            near=request.near,
            priority=request.priority,
            limits=parts.limits,
            asked=asked,
        )
    return RelocateAll(
        parts.new_id(),
        str(caller),
        tenant=subject.tenant,
        name=subject.group,
        server_id=subject.server_id,
        where=Where(destination, request.near),
        priority=request.priority,
        limits=parts.limits,
        asked=asked,
    )


async def _arranged(
    parts: Parts, command: Relocate | RelocateAll, caller: Caller
) -> Relocate | RelocateAll:
    """What is to go to another domain is planned there."""
    named = command.destination if isinstance(command, Relocate) else command.where.destination
    if not is_abroad(named):
        return command
    records = list(command.records(parts.ledger.table))
    abroad = await parts.carrier.plan(records, named, caller)
    return replace(command, abroad=abroad)


def _gauged(parts: Parts, command: Relocate | RelocateAll) -> Relocate | RelocateAll:
    """With what is reported now, so that deciding it again gives the same."""
    gauges = {
        record.vm.vm_id: parts.monitor.gauge(record.location.server_id, record.vm.vm_id)
        for record in command.records(parts.ledger.table)
    }
    return replace(command, gauges=gauges)


def _check(parts: Parts, command: Relocate | RelocateAll, caller: Caller) -> None:
    """A tenant moves what is its own, and pushes nobody else aside."""
    if isinstance(command, Relocate):
        check_vm(parts.ledger.table, caller, command.vm_id)
    elif caller.confined and (command.server_id or command.tenant != caller.tenant):
        raise Refusal(Reason.FORBIDDEN, f"{caller} may move its own VMs and groups only")
    if caller.confined and command.priority > 0:
        raise Refusal(Reason.FORBIDDEN, f"{caller} may not ask for priority")


@dataclass(frozen=True, slots=True)
class _Subject:
    vm_id: str = ""
    tenant: str = ""
    group: str = ""
    server_id: str = ""

    @classmethod
    def read(cls, check: Checker, request: pb.RelocateRequest) -> _Subject:
        match request.WhichOneof("subject"):
            case "group":
                return cls(
                    tenant=check.parse("group.tenant", parse_name, request.group.tenant, ""),
                    group=check.parse("group.group", parse_name, request.group.group, ""),
                )
            case "server_id":
                name = check.parse("server_id", parse_name, request.server_id, "")
                return cls(server_id=name)
            case _:
                return cls(vm_id=check.parse("vm_id", parse_vm_id, request.vm_id, ""))


def _planned(parts: Parts, command: Relocate | RelocateAll, caller: Caller) -> pb.RelocateResponse:
    table = parts.ledger.table
    forecasts = Forecasts(table, command.gauges)
    if isinstance(command, RelocateAll):
        plans = command.plan(table, parts.clock.now_ms())
        return _told(command.where.destination, plans, forecasts, caller)
    planned = command.plan(table)
    return _told(planned.destination, [planned], forecasts, caller)


def _told(
    destination: str, plans: list[Plan], forecasts: Forecasts, caller: Caller
) -> pb.RelocateResponse:
    return pb.RelocateResponse(
        destination=destination,
        objections=[
            pb.Objection(
                reason=o.reason.name,
                message=told(caller, Refusal(o.reason, o.message)).message,
                server_id=o.server_id,
                vm_id=o.vm_id,
            )
            for each in plans
            for o in each.objections
        ],
        moves=[_to_move(each, forecasts.of_plan(each)) for each in plans if not each.objections],
    )


def _to_move(planned: Plan, predicted: Prediction | None) -> pb.PlannedMove:
    return pb.PlannedMove(
        vm_id=planned.record.vm.vm_id,
        source=planned.record.location.server_id,
        destination=planned.destination,
        predicted=to_prediction(predicted) if predicted is not None else None,
        kind=MOVE_KIND.to(planned.kind),
        creates=planned.creates,
        disks=to_disks(planned.disks),
    )
