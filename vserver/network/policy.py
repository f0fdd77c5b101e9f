"""Whether a port's policy lets a frame pass: the meaning that every data plane has to share.

Pure and slow on purpose. `memory` runs it; `linux` compiles the same to nftables, and the contract
suite sends frames through both. Rates are not decided here, since they depend on time.

Order: closed, anti-spoofing (from the VM only), ACL rules, the direction's default. The neighbour
protocols (ARP, RARP, ND) heed only rules that name their ethertype, and pass otherwise: a default
of deny is meant for traffic, and must not cut off the resolution that permitted traffic needs.
"""

from __future__ import annotations

import ipaddress

from common.model.profile import (
    ARP,
    ICMP6,
    IPV4,
    IPV6,
    UDP,
    Acl,
    AclRule,
    Action,
    Direction,
    PortRange,
    Profile,
)
from vserver.network.frame import (
    ALL_PORTS,
    DISCOVERY_AND_REDIRECTS,
    FRAGMENT,
    HOP_BY_HOP,
    NEIGHBOUR_ADVERTISEMENT,
    OPTIONS,
    RARP,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTING,
    VLAN_TAGS,
    WITH_PORTS,
    WITH_TYPES,
    Frame,
    link_local,
    of_family,
)
from vserver.network.port import Port


def verdict(port: Port, direction: Direction, frame: Frame) -> bool:
    """Whether the frame passes this port in this direction (as the VM sees it)."""
    if not port.is_open:
        return False
    is_checked = direction is Direction.EGRESS and port.profile.spoofing_is_checked
    if is_checked and not is_genuine(port, frame):
        return False
    return permits(port.profile.acl or Acl(), direction, frame)


def is_genuine(port: Port, frame: Frame) -> bool:
    """Whether a frame may come from this VM. Without known IPs only its MAC is checked."""
    if frame.source_mac != port.mac or frame.ethertype in VLAN_TAGS:
        return False  # a tag would hide the addresses from the checks
    if frame.ethertype in (ARP, RARP) and frame.sender_mac != port.mac:
        return False
    if _hides_in_fragments(frame) or _is_router_or_server(port.profile, frame):
        return False
    return not port.ips or _owns_addresses(port, frame)


def _is_router_or_server(profile: Profile, frame: Frame) -> bool:
    """Router advertisements, redirects, and a DHCP server's replies are not a guest's to send,
    unless its profile permits the first or the last."""
    if frame.protocol == ICMP6 and frame.ethertype == IPV6:
        if frame.icmp_type == ROUTER_ADVERTISEMENT:
            return not profile.router_advertisements
        return frame.icmp_type == REDIRECT
    if profile.dhcp_server:
        return False
    ports = (frame.source_port, frame.destination_port)
    server = {IPV4: (67, 68), IPV6: (547, 546)}.get(frame.ethertype)
    return frame.protocol == UDP and ports == server


def _hides_in_fragments(frame: Frame) -> bool:
    """Neighbour discovery in fragments (RFC 6980), or headers behind the fragment header that may
    push it out of the first fragment, where nobody could look for it (RFC 7113)."""
    if frame.ethertype != IPV6 or FRAGMENT not in frame.extensions:
        return False
    behind = frame.extensions[frame.extensions.index(FRAGMENT) + 1 :]
    if not {HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS}.isdisjoint(behind):
        return True
    return frame.protocol == ICMP6 and frame.icmp_type in DISCOVERY_AND_REDIRECTS


def _owns_addresses(port: Port, frame: Frame) -> bool:
    if frame.ethertype == ARP:  # 0.0.0.0: a probe (RFC 5227)
        return frame.source_ip in ("0.0.0.0", *port.ips)
    if frame.ethertype == IPV4:
        return frame.source_ip in port.ips or _is_dhcp_request(frame)
    if frame.ethertype != IPV6:
        return True
    own = (link_local(port.mac), *of_family(port.ips, 6))
    is_answer = frame.protocol == ICMP6 and frame.icmp_type == NEIGHBOUR_ADVERTISEMENT
    if is_answer and frame.nd_target not in own:
        return False
    is_unspecified = frame.source_ip == "::" and frame.protocol == ICMP6  # DAD, MLD
    return is_unspecified or frame.source_ip in own


def _is_dhcp_request(frame: Frame) -> bool:
    ports = (frame.source_port, frame.destination_port)
    return frame.source_ip == "0.0.0.0" and frame.protocol == UDP and ports == (68, 67)


def permits(acl: Acl, direction: Direction, frame: Frame) -> bool:
    """First match decides, then the direction's default."""
    rules = [rule for rule in acl.rules if rule.direction is direction]
    default = acl.default_ingress if direction is Direction.INGRESS else acl.default_egress
    if frame.is_neighbour_protocol:
        rules = [rule for rule in rules if rule.ethertype == frame.ethertype]
        default = Action.PERMIT
    actions = (rule.action for rule in rules if matches(rule, frame))
    return next(actions, default) is Action.PERMIT


def matches(rule: AclRule, frame: Frame) -> bool:
    """Every field that the rule has must fit; layers 3 and 4 are those of IP packets only."""
    return (
        rule.source_mac in (None, frame.source_mac)
        and rule.destination_mac in (None, frame.destination_mac)
        and rule.ethertype in (None, frame.ethertype)
        and (rule.protocol is None or (frame.is_ip and rule.protocol == frame.protocol))
        and _in_prefix(rule.source_prefix, frame, frame.source_ip)
        and _in_prefix(rule.destination_prefix, frame, frame.destination_ip)
        and _in_range(rule.source_ports, frame, frame.source_port)
        and _in_range(rule.destination_ports, frame, frame.destination_port)
        and _is_number(rule.icmp_type, frame, frame.icmp_type)
        and _is_number(rule.icmp_code, frame, frame.icmp_code)
    )


def _in_prefix(prefix: str | None, frame: Frame, ip: str) -> bool:
    if prefix is None:
        return True
    return frame.is_ip and ipaddress.ip_address(ip) in ipaddress.ip_network(prefix)


def _in_range(ports: PortRange | None, frame: Frame, number: int | None) -> bool:
    """A later fragment has no ports: only a rule for all ports matches it."""
    if ports is None:
        return True
    if not frame.is_ip or frame.protocol not in WITH_PORTS:
        return False
    return ports == ALL_PORTS or (number is not None and ports.first <= number <= ports.last)


def _is_number(wanted: int | None, frame: Frame, number: int | None) -> bool:
    if wanted is None:
        return True
    return frame.is_ip and frame.protocol in WITH_TYPES and wanted == number
