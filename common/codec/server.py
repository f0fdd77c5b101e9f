"""Hosts, tenants, networks, groups, alerts, statuses."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import CAPABILITY, LIVENESS, SEVERITY, VM_STATE
from common.codec.manner import from_disks, to_disks
from common.codec.numbers import MOST, measured
from common.codec.profile import from_profile, to_profile
from common.codec.times import from_timestamp, to_timestamp
from common.codec.vm import optional, to_resources
from common.model.disk import Disk
from common.model.identity import parse_ip, parse_name, parse_vm_id, parse_vni
from common.model.place import parse_server
from common.model.server import (
    Alert,
    Coordinates,
    Group,
    Liveness,
    Server,
    ServerStatus,
    Severity,
    Tenant,
    VirtualNetwork,
    VmStatus,
    is_on_earth,
)
from common.model.vm import Resources, VmState
from common.pb.vsignal.v1 import signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as pb

MAX_VNIS = 64


def to_server(server: Server) -> pb.Server:
    wire = pb.Server(
        server_id=server.server_id,
        name=server.name,
        management_address=server.management_address,
        vtep_address=server.vtep_address,
        site=server.site,
        capacity=to_resources(server.capacity),
        hypervisor=server.hypervisor,
        cpu_model=server.cpu_model,
        capabilities=[CAPABILITY.to(c) for c in sorted(server.capabilities)],
        migration_uri=server.migration_uri,
        mac_address=server.mac_address,
        coordinates=_to_coordinates(server.coordinates),
        cordoned=server.cordoned,
        keeps_standbys=server.keeps_standbys,
        carries_disks=server.carries_disks,
        attached_to=server.attached_to,
        liveness=LIVENESS.to(server.liveness),
        last_seen=to_timestamp(server.last_seen_ms),
        revision=server.revision,
    )
    if server.fenced_ms:
        wire.fenced_at.CopyFrom(to_timestamp(server.fenced_ms))
    return wire


def from_server(check: Checker, wire: pb.Server) -> Server:
    with check.at("server"):
        return Server(
            server_id=check.parse("server_id", parse_server, wire.server_id, ""),
            name=wire.name[:255],
            management_address=optional(
                check, "management_address", parse_ip, wire.management_address
            ),
            vtep_address=optional(check, "vtep_address", parse_ip, wire.vtep_address),
            site=optional(check, "site", parse_name, wire.site),
            capacity=Resources(wire.capacity.vcpus, wire.capacity.memory_mib),
            hypervisor=wire.hypervisor[:63],
            cpu_model=wire.cpu_model[:63],
            capabilities=frozenset(
                CAPABILITY.read(check, f"capabilities[{n}]", c)
                for n, c in enumerate(wire.capabilities[:32])
            ),
            migration_uri=wire.migration_uri[:255],
            mac_address=wire.mac_address[:17],
            coordinates=_from_coordinates(check, wire),
            cordoned=wire.cordoned,
            keeps_standbys=wire.keeps_standbys,
            carries_disks=wire.carries_disks,
            attached_to=wire.attached_to[:63],
            fenced_ms=from_timestamp(wire.fenced_at) if wire.HasField("fenced_at") else 0,
            liveness=LIVENESS.read(check, "liveness", wire.liveness, Liveness.SILENT),
            last_seen_ms=from_timestamp(wire.last_seen),
            revision=wire.revision,
        )


def _to_coordinates(place: Coordinates | None) -> pb.Coordinates | None:
    if place is None:
        return None
    return pb.Coordinates(latitude=place.latitude, longitude=place.longitude)


def _from_coordinates(check: Checker, wire: pb.Server) -> Coordinates | None:
    if not wire.HasField("coordinates"):
        return None
    place = Coordinates(wire.coordinates.latitude, wire.coordinates.longitude)
    check.require(is_on_earth(place), "coordinates", "-90..90 and -180..180 degrees")
    return place


def to_tenant(tenant: Tenant) -> pb.Tenant:
    return pb.Tenant(tenant_id=tenant.tenant_id, revision=tenant.revision)


def from_tenant(check: Checker, wire: pb.Tenant) -> Tenant:
    tenant_id = check.parse("tenant.tenant_id", parse_name, wire.tenant_id, "")
    return Tenant(tenant_id, wire.revision)


def to_network(network: VirtualNetwork) -> pb.VirtualNetwork:
    return pb.VirtualNetwork(
        network_id=network.network_id,
        tenant=network.tenant,
        vnis=network.vnis,
        revision=network.revision,
    )


def from_network(check: Checker, wire: pb.VirtualNetwork) -> VirtualNetwork:
    with check.at("network"):
        check.require(1 <= len(wire.vnis) <= MAX_VNIS, "vnis", f"1..{MAX_VNIS} VNIs")
        check.require(len(set(wire.vnis)) == len(wire.vnis), "vnis", "the same VNI twice")
        vnis = wire.vnis[:MAX_VNIS]
        return VirtualNetwork(
            network_id=check.parse("network_id", parse_name, wire.network_id, ""),
            tenant=check.parse("tenant", parse_name, wire.tenant, ""),
            vnis=tuple(check.parse(f"vnis[{n}]", parse_vni, v, 1) for n, v in enumerate(vnis)),
            revision=wire.revision,
        )


def to_group(group: Group) -> pb.Group:
    return pb.Group(
        tenant=group.tenant,
        name=group.name,
        profile=to_profile(group.profile) if group.profile is not None else None,
        revision=group.revision,
        anti_affinity=group.anti_affinity,
    )


def from_group(check: Checker, wire: pb.Group) -> Group:
    with check.at("group"):
        profile = None
        if wire.HasField("profile"):
            with check.at("profile"):
                profile = from_profile(check, wire.profile)
        return Group(
            tenant=check.parse("tenant", parse_name, wire.tenant, ""),
            name=check.parse("name", parse_name, wire.name, ""),
            profile=profile,
            revision=wire.revision,
            anti_affinity=wire.anti_affinity,
        )


def to_alert(alert: Alert) -> pb.Alert:
    return pb.Alert(
        alert_id=alert.alert_id,
        reason=alert.reason,
        message=alert.message,
        severity=SEVERITY.to(alert.severity),
        vm_id=alert.vm_id,
        server_id=alert.server_id,
        evidence=dict(alert.evidence),
        raised_at=to_timestamp(alert.raised_ms),
        revision=alert.revision,
    )


def from_alert(check: Checker, wire: pb.Alert) -> Alert:
    return Alert(
        alert_id=wire.alert_id,
        reason=wire.reason,
        message=wire.message,
        severity=SEVERITY.read(check, "severity", wire.severity, Severity.WARNING),
        raised_ms=from_timestamp(wire.raised_at),
        vm_id=wire.vm_id,
        server_id=wire.server_id,
        evidence=tuple(sorted(wire.evidence.items())),
        revision=wire.revision,
    )


def to_server_status(status: ServerStatus) -> signaling_pb2.ServerStatus:
    return signaling_pb2.ServerStatus(
        cpu_percent=status.cpu_percent,
        memory_free_mib=status.memory_free_mib,
        memory_total_mib=status.memory_total_mib,
    )


def from_server_status(wire: signaling_pb2.ServerStatus) -> ServerStatus:
    return ServerStatus(measured(wire.cpu_percent), wire.memory_free_mib, wire.memory_total_mib)


def to_vm_status(status: VmStatus) -> signaling_pb2.VmStatus:
    return signaling_pb2.VmStatus(
        vm_id=status.vm_id,
        epoch=status.epoch,
        state=VM_STATE.to(status.state),
        cpu_percent=status.cpu_percent,
        memory_used_mib=status.memory_used_mib,
        applied_hash=status.applied_hash,
        port_problem=status.port_problem,
        dirty_bytes_per_second=status.dirty_bytes_per_second,
        disks=_to_disks(status.disks),
    )


def _to_disks(disks: tuple[Disk, ...] | None) -> signaling_pb2.VmStatus.Disks | None:
    return None if disks is None else signaling_pb2.VmStatus.Disks(disks=to_disks(disks))


def from_vm_status(check: Checker, wire: signaling_pb2.VmStatus) -> VmStatus:
    state = VM_STATE.read(check, "state", wire.state)
    lost = state is VmState.LOST_NEEDS_FENCE
    check.require(not lost, "state", "a host cannot say of a VM that it is lost")
    return VmStatus(
        vm_id=check.parse("vm_id", parse_vm_id, wire.vm_id, ""),
        epoch=wire.epoch,
        state=state,
        cpu_percent=measured(wire.cpu_percent),
        memory_used_mib=wire.memory_used_mib,
        applied_hash=wire.applied_hash[:64],
        port_problem=wire.port_problem[:500],
        dirty_bytes_per_second=_rate(check, wire),
        disks=from_disks(wire.disks.disks) if wire.HasField("disks") else None,
    )


def _rate(check: Checker, wire: signaling_pb2.VmStatus) -> float | None:
    """Predictions are made of it, which must stay numbers."""
    if not wire.HasField("dirty_bytes_per_second"):
        return None
    rate = wire.dirty_bytes_per_second
    check.require(0 <= rate <= MOST, "dirty_bytes_per_second", f"0..{MOST:g}")
    return rate
