"""Replicate on the wire: which of the answers of a move it gives, and who may ask."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.manner import from_budget
from common.errors import Reason, Refusal
from common.model.caller import Role
from common.model.identity import parse_vm_id
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.relocate import Relocate
from vcenter.core.replicate import replicate
from vcenter.wire import relocate
from vcenter.wire.caller import Caller
from vcenter.wire.context import Parts


async def serve(parts: Parts, request: pb.ReplicateRequest, caller: Caller) -> pb.ReplicateResponse:
    answer = await relocate.carry_out(
        parts, _read(parts, request, caller), caller, plan_only=request.plan_only
    )
    return pb.ReplicateResponse(
        operation=answer.operation if answer.HasField("operation") else None,
        destination=answer.destination,
        objections=answer.objections,
        moves=answer.moves,
    )


def _read(parts: Parts, request: pb.ReplicateRequest, caller: Caller) -> Relocate:
    check = Checker()
    vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
    check.require(bool(request.near), "near", "say where the tenant is")
    check.require(
        len(request.near) <= relocate.MAX_PLACE, "near", f"at most {relocate.MAX_PLACE} characters"
    )
    budget = from_budget(check, request.budget)
    check.done()
    _refuse_strangers(parts, vm_id, caller)
    return replicate(
        parts.new_id(),
        vm_id,
        request.near,
        str(caller),
        standby=request.standby,
        budget=budget,
        limits=parts.limits,
    )


def _refuse_strangers(parts: Parts, vm_id: str, caller: Caller) -> None:
    """A vServer speaks for the tenants whose VMs it runs."""
    record = parts.ledger.table.vm(vm_id)
    if caller.role is not Role.VSERVER or record is None:
        return
    owner = record.location.server_id
    if owner != caller.name:
        raise Refusal(Reason.NOT_OWNER, f"VM {vm_id} is on vServer {owner}")
