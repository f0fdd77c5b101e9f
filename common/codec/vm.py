"""VMs and their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from common.codec.checker import Checker
from common.codec.enums import VM_STATE
from common.codec.profile import from_profile, to_profile
from common.codec.times import from_timestamp, to_timestamp
from common.model.identity import Claim, parse_ip, parse_mac, parse_name, parse_vm_id, parse_vni
from common.model.profile import Profile
from common.model.vm import Interface, Location, Resources, Vm, VmKey, VmRecord, VmState
from common.pb.vsignal.v1 import types_pb2 as pb

MAX_INTERFACES = 32
MAX_IPS = 64
MAX_VM_NAME = 255
MAX_VCPUS = 2**16
MAX_MEMORY_MIB = 2**40
T = TypeVar("T")


def to_vm(vm: Vm) -> pb.Vm:
    return pb.Vm(
        vm_id=vm.vm_id,
        name=vm.name,
        tenant=vm.tenant,
        group=vm.group,
        interfaces=[_to_interface(i) for i in vm.interfaces],
        profile=to_profile(vm.profile) if vm.profile is not None else None,
        resources=to_resources(vm.resources),
    )


def from_vm(check: Checker, wire: pb.Vm) -> Vm:
    with check.at("vm"):
        check.at_most("name", len(wire.name.encode()), MAX_VM_NAME)
        return Vm(
            vm_id=check.parse("vm_id", parse_vm_id, wire.vm_id, ""),
            name=wire.name,
            tenant=optional(check, "tenant", parse_name, wire.tenant),
            group=optional(check, "group", parse_name, wire.group),
            interfaces=_from_interfaces(check, wire),
            profile=_from_own_profile(check, wire),
            resources=from_resources(check, wire.resources),
        )


def optional(check: Checker, field: str, parser: Callable[[str], str], text: str) -> str:
    """Empty means "not said"; anything else must be well-formed."""
    return check.parse(field, parser, text, "") if text else ""


def to_resources(resources: Resources) -> pb.Resources:
    return pb.Resources(vcpus=resources.vcpus, memory_mib=resources.memory_mib)


def from_resources(check: Checker, wire: pb.Resources) -> Resources:
    """Limits, so that the sum over a host's VMs fits its field."""
    check.at_most("resources.vcpus", wire.vcpus, MAX_VCPUS)
    check.at_most("resources.memory_mib", wire.memory_mib, MAX_MEMORY_MIB)
    return Resources(wire.vcpus, wire.memory_mib)


def _from_own_profile(check: Checker, wire: pb.Vm) -> Profile | None:
    if not wire.HasField("profile"):
        return None
    with check.at("profile"):
        return from_profile(check, wire.profile)


def _to_interface(interface: Interface) -> pb.Interface:
    return pb.Interface(
        mac=interface.mac, ips=interface.ips, network=interface.network, vni=interface.vni
    )


def _from_interfaces(check: Checker, wire: pb.Vm) -> tuple[Interface, ...]:
    if not check.at_most("interfaces", len(wire.interfaces), MAX_INTERFACES):
        return ()
    found = []
    for index, interface in enumerate(wire.interfaces):
        with check.at(f"interfaces[{index}]"):
            found.append(_from_interface(check, interface))
    macs = [i.mac for i in found]
    check.require(len(set(macs)) == len(macs), "interfaces", "the same MAC twice")
    return tuple(found)


def _from_interface(check: Checker, wire: pb.Interface) -> Interface:
    ips: tuple[str, ...] = ()
    if check.at_most("ips", len(wire.ips), MAX_IPS):
        ips = tuple(check.parse(f"ips[{n}]", parse_ip, ip, "") for n, ip in enumerate(wire.ips))
    return Interface(
        mac=check.parse("mac", parse_mac, wire.mac, ""),
        ips=ips,
        network=optional(check, "network", parse_name, wire.network),
        vni=check.parse("vni", parse_vni, wire.vni, 0) if wire.vni else 0,
    )


def to_record(record: VmRecord, profile_hash: str = "") -> pb.VmRecord:
    return pb.VmRecord(
        vm=to_vm(record.vm),
        location=to_location(record.location),
        revision=record.revision,
        changed_at=to_timestamp(record.changed_ms),
        profile_hash=profile_hash,
        operation_id=record.operation_id,
    )


def from_record(check: Checker, wire: pb.VmRecord) -> VmRecord:
    state = VM_STATE.read(check, "location.state", wire.location.state, VmState.SHUT_OFF)
    return VmRecord(
        vm=from_vm(check, wire.vm),
        location=Location(wire.location.server_id, state, wire.location.epoch),
        changed_ms=from_timestamp(wire.changed_at),
        operation_id=wire.operation_id,
        revision=wire.revision,
    )


def to_location(location: Location) -> pb.Location:
    return pb.Location(
        server_id=location.server_id,
        state=VM_STATE.to(location.state),
        epoch=location.epoch,
    )


def plain_key(wire: pb.VmKey) -> VmKey:
    """Raises ValueError if anything is wrong with it; `from_key`, which is slower, says what."""
    kind = wire.WhichOneof("key")
    if kind == "ip":
        ip = wire.ip
        return VmKey(claim=Claim(parse_vni(ip.vni), parse_ip(ip.ip)))
    if kind == "mac":
        mac = wire.mac
        return VmKey(claim=Claim(parse_vni(mac.vni), parse_mac(mac.mac)))
    return VmKey(vm_id=parse_vm_id(wire.vm_id))


def from_key(check: Checker, wire: pb.VmKey) -> VmKey:
    kind = wire.WhichOneof("key")
    if kind == "vm_id":
        return VmKey(vm_id=check.parse("vm_id", parse_vm_id, wire.vm_id, ""))
    if kind == "mac":
        return VmKey(claim=_claim(check, "mac", parse_mac, wire.mac.vni, wire.mac.mac))
    if kind == "ip":
        return VmKey(claim=_claim(check, "ip", parse_ip, wire.ip.vni, wire.ip.ip))
    check.fail("key", "give a vm_id, a (vni, MAC) or a (vni, IP)")
    return VmKey()


def _claim(
    check: Checker, field: str, parser: Callable[[str], str], vni: int, address: str
) -> Claim:
    with check.at(field):
        return Claim(check.parse("vni", parse_vni, vni, 0), check.parse(field, parser, address, ""))
