"""Profiles: limits, and layers that must agree with each other (draft 3.5)."""

from __future__ import annotations

import ipaddress
from typing import Any

from common.codec.checker import Checker
from common.codec.enums import ACTION, DIRECTION
from common.model.identity import parse_any_mac, parse_prefix
from common.model.profile import (
    ARP,
    ICMP,
    ICMP6,
    IPV4,
    IPV6,
    MAX_RULES,
    SCTP,
    TCP,
    UDP,
    Acl,
    AclRule,
    Action,
    PortRange,
    Profile,
    Rate,
)
from common.pb.vsignal.v1 import types_pb2 as pb

MAX_NAME = 63


def to_profile(profile: Profile) -> pb.Profile:
    wire = pb.Profile(
        vlan=profile.vlan,
        priority=profile.priority,
        anti_spoofing=profile.anti_spoofing,
        router_advertisements=profile.router_advertisements,
        dhcp_server=profile.dhcp_server,
    )
    if profile.acl is not None:
        wire.acl.CopyFrom(_to_acl(profile.acl))
    for name in ("ingress_rate", "egress_rate"):
        rate: Rate | None = getattr(profile, name)
        if rate is not None:
            wire_rate = pb.Rate(bits_per_second=rate.bits_per_second, burst_bytes=rate.burst_bytes)
            getattr(wire, name).CopyFrom(wire_rate)
    return wire


def from_profile(check: Checker, wire: pb.Profile) -> Profile:
    vlan = _optional(wire, "vlan")
    check.require(vlan is None or 1 <= vlan <= 4094, "vlan", f"1..4094, not {vlan}")
    priority = _optional(wire, "priority")
    check.require(priority is None or priority <= 7, "priority", f"0..7, not {priority}")
    return Profile(
        vlan=vlan,
        acl=_from_acl(check, wire.acl) if wire.HasField("acl") else None,
        ingress_rate=_from_rate(check, wire, "ingress_rate"),
        egress_rate=_from_rate(check, wire, "egress_rate"),
        priority=priority,
        anti_spoofing=_optional(wire, "anti_spoofing"),
        router_advertisements=_optional(wire, "router_advertisements"),
        dhcp_server=_optional(wire, "dhcp_server"),
    )


def _optional(wire: Any, field: str) -> Any:
    return getattr(wire, field) if wire.HasField(field) else None


def _to_acl(acl: Acl) -> pb.Acl:
    return pb.Acl(
        rules=[_to_rule(rule) for rule in acl.rules],
        default_ingress=ACTION.to(acl.default_ingress),
        default_egress=ACTION.to(acl.default_egress),
    )


def _to_rule(rule: AclRule) -> pb.AclRule:
    wire = pb.AclRule(
        name=rule.name,
        action=ACTION.to(rule.action),
        direction=DIRECTION.to(rule.direction),
        source_mac=rule.source_mac or "",
        destination_mac=rule.destination_mac or "",
        ethertype=rule.ethertype or 0,
        source_prefix=rule.source_prefix or "",
        destination_prefix=rule.destination_prefix or "",
        protocol=rule.protocol,
        icmp_type=rule.icmp_type,
        icmp_code=rule.icmp_code,
    )
    for name in ("source_ports", "destination_ports"):
        ports: PortRange | None = getattr(rule, name)
        if ports is not None:
            getattr(wire, name).CopyFrom(pb.PortRange(first=ports.first, last=ports.last))
    return wire


def _from_acl(check: Checker, wire: pb.Acl) -> Acl:
    with check.at("acl"):
        if not check.at_most("rules", len(wire.rules), MAX_RULES):
            return Acl()
        rules = []
        for index, rule in enumerate(wire.rules):
            with check.at(f"rules[{index}]"):
                rules.append(_from_rule(check, rule))
        ingress = ACTION.read(check, "default_ingress", wire.default_ingress, Action.PERMIT)
        egress = ACTION.read(check, "default_egress", wire.default_egress, Action.PERMIT)
        return Acl(tuple(rules), ingress, egress)


def _from_rule(check: Checker, wire: pb.AclRule) -> AclRule:
    check.at_most("name", len(wire.name), MAX_NAME)
    for field, limit in (("protocol", 255), ("icmp_type", 255), ("icmp_code", 255)):
        value = _optional(wire, field)
        check.require(value is None or value <= limit, field, f"0..{limit}, not {value}")
    ethertype = wire.ethertype or None
    in_range = ethertype is None or 0x0600 <= ethertype <= 0xFFFF
    check.require(in_range, "ethertype", f"0x0600..0xffff, not {wire.ethertype:#x}")
    rule = AclRule(
        name=wire.name,
        action=ACTION.read(check, "action", wire.action),
        direction=DIRECTION.read(check, "direction", wire.direction),
        source_mac=_from_mac(check, wire, "source_mac"),
        destination_mac=_from_mac(check, wire, "destination_mac"),
        ethertype=ethertype,
        source_prefix=_from_prefix(check, wire, "source_prefix"),
        destination_prefix=_from_prefix(check, wire, "destination_prefix"),
        protocol=_optional(wire, "protocol"),
        source_ports=_from_ports(check, wire, "source_ports"),
        destination_ports=_from_ports(check, wire, "destination_ports"),
        icmp_type=_optional(wire, "icmp_type"),
        icmp_code=_optional(wire, "icmp_code"),
    )
    _check_layers(check, rule)
    return rule


def _from_mac(check: Checker, wire: pb.AclRule, field: str) -> str | None:
    text: str = getattr(wire, field)
    return check.parse(field, parse_any_mac, text, None) if text else None


def _from_prefix(check: Checker, wire: pb.AclRule, field: str) -> str | None:
    text: str = getattr(wire, field)
    return check.parse(field, parse_prefix, text, None) if text else None


def _from_ports(check: Checker, wire: pb.AclRule, field: str) -> PortRange | None:
    if not wire.HasField(field):  # type: ignore[arg-type]
        return None
    ports: pb.PortRange = getattr(wire, field)
    ok = ports.first <= ports.last <= 65535
    check.require(ok, field, f"0..65535 and in order, not {ports.first}-{ports.last}")
    return PortRange(ports.first, ports.last)


def _from_rate(check: Checker, wire: pb.Profile, field: str) -> Rate | None:
    if not wire.HasField(field):  # type: ignore[arg-type]
        return None
    rate: pb.Rate = getattr(wire, field)
    ok = 8_000 <= rate.bits_per_second <= 400_000_000_000
    check.require(ok, f"{field}.bits_per_second", "8000..400000000000")
    check.at_most(f"{field}.burst_bytes", rate.burst_bytes, 2**32 - 1)
    return Rate(rate.bits_per_second, rate.burst_bytes)


def _check_layers(check: Checker, rule: AclRule) -> None:
    """A rule whose layers contradict each other would never match: a mistake, not policy."""
    has_ports = rule.source_ports is not None or rule.destination_ports is not None
    if has_ports and rule.protocol not in (TCP, UDP, SCTP):
        check.fail("protocol", "ports need protocol TCP (6), UDP (17) or SCTP (132)")
    has_icmp = rule.icmp_type is not None or rule.icmp_code is not None
    if has_icmp and rule.protocol not in (ICMP, ICMP6):
        check.fail("protocol", "ICMP fields need protocol ICMP (1) or ICMPv6 (58)")
    if rule.icmp_code is not None and rule.icmp_type is None:
        check.fail("icmp_code", "a code needs its type")
    _check_network_layer(check, rule)


def _check_network_layer(check: Checker, rule: AclRule) -> None:
    families = {
        IPV4 if ipaddress.ip_network(p).version == 4 else IPV6
        for p in (rule.source_prefix, rule.destination_prefix)
        if p
    }
    if rule.protocol in (ICMP, ICMP6):
        families.add(IPV4 if rule.protocol == ICMP else IPV6)
    if len(families) > 1:
        check.fail("", "IPv4 and IPv6 in one rule: it would match nothing")
    needs_ip = bool(families) or rule.protocol is not None
    if rule.ethertype is None or not needs_ip:
        return
    if rule.ethertype == ARP or rule.ethertype not in (families or {IPV4, IPV6}):
        check.fail("ethertype", f"{rule.ethertype:#06x} contradicts the rule's prefix or protocol")
