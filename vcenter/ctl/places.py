"""What a ledger record says of a VM, for people. Pure."""

from __future__ import annotations

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl.output import Pairs
from vcenter.ctl.words import listed, moment, or_none, short, word

CLOSED = "closed: "


def closed_because(record: types_pb2.VmRecord) -> str:
    """Why the VM's ports must be closed, as far as the ledger knows; empty = they need not."""
    vm = record.vm
    if record.location.state == types_pb2.VM_STATE_LOST_NEEDS_FENCE:
        return CLOSED + "needs a fence"
    if not vm.tenant:
        return CLOSED + "unassigned"
    if not vm.interfaces:
        return CLOSED + "no interface"
    if not all(interface.network for interface in vm.interfaces):
        return CLOSED + "no network"
    return ""


def state(record: types_pb2.VmRecord) -> str:
    """`running`, `running, moving`."""
    return word(record.location, "state") + (", moving" if record.operation_id else "")


def owner(vm: types_pb2.Vm) -> str:
    """`tenant/group`, `tenant`, or `-`."""
    return f"{vm.tenant}/{vm.group}" if vm.group else vm.tenant or "-"


def interface_text(interface: types_pb2.Interface) -> str:
    """`52:54:00:00:00:01 on blue:5001 10.1.0.5`."""
    where = interface.network or "no network"
    where += f":{interface.vni}" if interface.vni else ""
    return " ".join([interface.mac, "on", where, *interface.ips])


def addresses(vm: types_pb2.Vm) -> str:
    """Every IP, or the MAC of an interface without one."""
    return listed(text for i in vm.interfaces for text in (i.ips or [i.mac]))


def _ports(answer: directory_pb2.GetVmResponse) -> str:
    closed = closed_because(answer.record) or answer.status.port_problem
    wanted, applied = answer.record.profile_hash, answer.status.applied_hash
    if closed:
        return closed
    if not answer.HasField("status"):
        return f"policy {short(wanted)}, no report from the host yet"
    if not applied:
        return f"closed: policy {short(wanted)} is not in force yet"
    if applied != wanted:
        return f"policy {short(applied)} in force, {short(wanted)} wanted"
    return f"policy {short(wanted)} in force"


def _twin(twin: types_pb2.Twin) -> str:
    sides = "; ".join(
        f"in {s.domain} VM {s.vm_id} on {s.server_id} at epoch {s.epoch}" for s in twin.sides
    )
    told = f", as {twin.told_by} says" if twin.told_by else ""
    return f"{twin.identity} is held twice since {moment(twin.since)}{told}: {sides}"


def vm_pairs(answer: directory_pb2.GetVmResponse) -> Pairs:
    """Everything about one VM."""
    machine, place = answer.record.vm, answer.record.location
    yield "VM", machine.vm_id
    yield "Name", or_none(machine.name)
    yield "Tenant", owner(machine)
    yield "Server", or_none(place.server_id)
    yield "State", word(place, "state")
    yield "Epoch", str(place.epoch)
    for interface in machine.interfaces:
        yield "Interface", interface_text(interface)
    yield "Ports", _ports(answer)
    yield "Resources", f"{machine.resources.vcpus} vCPUs, {machine.resources.memory_mib} MiB"
    if answer.HasField("status"):
        status = answer.status
        yield "In use", f"CPU {status.cpu_percent:.0f}%, {status.memory_used_mib} MiB"
    yield "Operation", or_none(answer.record.operation_id)
    for twin in answer.twins:
        yield ("Thawed" if twin.HasField("thawed_at") else "Frozen"), _twin(twin)
    yield "Changed", f"{moment(answer.record.changed_at)}, revision {answer.record.revision}"
