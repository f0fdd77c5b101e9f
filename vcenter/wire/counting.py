"""How many VMs there are of each state, as far as the caller sees them."""

from __future__ import annotations

from common.codec.enums import VM_STATE
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.core.packed import Kind
from vcenter.core.table import Table
from vcenter.wire.caller import Caller
from vcenter.wire.sight import sees_kind


def count_vms(table: Table, request: pb.CountVmsRequest, caller: Caller) -> pb.CountVmsResponse:
    def wanted(kind: Kind) -> bool:
        return (
            sees_kind(caller, kind)
            and request.tenant in ("", kind.tenant)
            and request.group in ("", kind.group)
            and (not request.network or request.network in kind.networks)
        )

    found = table.vms.states(wanted, request.server_id)
    states = [pb.StateCount(state=VM_STATE.to(state), vms=n) for state, n in found.items()]
    states.sort(key=lambda counted: counted.state)
    return pb.CountVmsResponse(states=states, vms=sum(found.values()), revision=table.revision)
