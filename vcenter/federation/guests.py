"""VMs on their way between domains, and operations about them, as vCenters tell each other.

On the wire a vServer has the name that the teller has for it; whose word it is says the connection,
never the body.
"""

from __future__ import annotations

from dataclasses import replace

from common.codec.checker import Checker
from common.codec.operation import from_operation
from common.codec.server import (
    from_group,
    from_network,
    from_server,
    to_group,
    to_network,
    to_server,
)
from common.codec.vm import from_record, to_location, to_vm
from common.errors import Reason
from common.model.identity import parse_vm_id
from common.model.operation import Operation
from common.model.place import translated
from common.model.server import VirtualNetwork
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2, signaling_pb2, types_pb2
from vcenter.core.abroad import as_known
from vcenter.core.arrival import Guest
from vcenter.core.placement import Objection
from vcenter.core.view import View

MAX_NETWORKS = 64
MAX_PHASES = 64


def to_guest(view: View, record: VmRecord) -> pb.Guest:
    """Everything that is declared of it here. Raises `Refusal(UNKNOWN_SERVER)`."""
    vm = record.vm
    guest = pb.Guest(
        vm=to_vm(vm),
        location=to_location(record.location),
        source=to_server(view.must_server(record.location.server_id)),
        networks=[to_network(network) for network in _networks(view, record)],
    )
    group = view.group(vm.tenant, vm.group) if vm.group else None
    if group is not None:
        guest.group.CopyFrom(to_group(group))
    return guest


def _networks(view: View, record: VmRecord) -> list[VirtualNetwork]:
    found = {vni: view.network_of(vni) for vni in sorted(record.vm.vnis())}
    return list({n.network_id: n for n in found.values() if n is not None}.values())


def from_guest(check: Checker, wire: pb.Guest, teller: str, own: str) -> Guest:
    """Checks that its group and networks are its tenant's."""
    location = types_pb2.VmRecord(vm=wire.vm, location=wire.location)
    record = from_record(check, location)
    source = from_server(check, wire.source)
    source = as_known(source, translated(source.server_id, teller, own))
    check.at_most("networks", len(wire.networks), MAX_NETWORKS)
    networks = tuple(from_network(check, network) for network in wire.networks[:MAX_NETWORKS])
    group = from_group(check, wire.group) if wire.HasField("group") else None
    tenant = record.vm.tenant
    check.require(bool(tenant), "vm.tenant", "a VM that moves to another domain is a tenant's")
    strangers = [n for n in networks if n.tenant != tenant]
    check.require(not strangers, "networks", "of another tenant than the VM")
    same = group is None or (group.tenant, group.name) == (tenant, record.vm.group)
    check.require(same, "group", "not the VM's")
    at = replace(record.location, server_id=source.server_id)
    return Guest(replace(record, location=at), source, group, networks)


def from_move(check: Checker, wire: operations_pb2.Operation, teller: str, own: str) -> Operation:
    """In our names. It is between that domain and ours."""
    move = from_operation(check, wire)
    check.parse("operation_id", parse_vm_id, wire.operation_id, "")
    check.parse("vm_id", parse_vm_id, wire.vm_id, "")
    check.at_most("phases", len(wire.phases), MAX_PHASES)
    return replace(
        move,
        requested_by=move.requested_by[:255],
        source=translated(move.source, teller, own),
        destination=translated(move.destination, teller, own),
        acks=tuple(translated(ack, teller, own) for ack in move.acks),
        parent="",
        told=False,
        on_behalf="",
        revision=0,
    )


def to_objection(objection: Objection) -> signaling_pb2.Objection:
    return signaling_pb2.Objection(
        reason=objection.reason.name,
        message=objection.message,
        server_id=objection.server_id,
        vm_id=objection.vm_id,
    )


def from_objection(wire: signaling_pb2.Objection, teller: str, own: str) -> Objection:
    """A reason of a later release than ours is told as what it comes to."""
    reason = Reason.__members__.get(wire.reason, Reason.NO_DESTINATION)
    server_id = translated(wire.server_id, teller, own) if wire.server_id else ""
    return Objection(reason, wire.message[:2000], server_id, wire.vm_id)
