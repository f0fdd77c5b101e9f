"""ACL rules as nftables rules: `policy.permits`, in the kernel's words.

Bridge connection tracking is missing on many kernels, so rules are stateless everywhere. Ports and
ICMP types are matched by their place in the header, which serves IPv4 and IPv6 with one rule.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from common.model.profile import ARP, ICMP6, IPV6, Acl, AclRule, Action, Direction, PortRange
from vserver.network.frame import ALL_PORTS, IP_TYPES, RARP, WITH_PORTS, WITH_TYPES

_ND = "ether type 0x86dd meta l4proto 58 @th,0,8 133-136"
_ANY_IP = "ether type != 0x8100 ether type != 0x88a8"  # l4proto says the rest: no set to read back
_VERB = {Action.PERMIT: "accept", Action.DENY: "drop"}


def compile_acl(acl: Acl, direction: Direction) -> list[str]:
    """The neighbour protocols first, then everything; the last rule is always a verdict."""
    rules = [rule for rule in acl.rules if rule.direction is direction]
    default = acl.default_ingress if direction is Direction.INGRESS else acl.default_egress
    return [
        *_neighbours(rules, ARP, "ether type 0x0806"),
        *_neighbours(rules, RARP, "ether type 0x8035"),
        *_neighbours([rule for rule in rules if _may_be_icmp6(rule)], IPV6, _ND),
        *_each(rules),
        _VERB[default],
    ]


def _neighbours(rules: list[AclRule], ethertype: int, guard: str) -> Iterator[str]:
    """What names this ethertype decides; else the protocol passes."""
    for text in _each([rule for rule in rules if rule.ethertype == ethertype]):
        yield f"{guard} {text}"
    yield f"{guard} accept"


def _may_be_icmp6(rule: AclRule) -> bool:
    """nft refuses a line that asks for two layer-4 protocols at once."""
    has_ports = rule.source_ports is not None or rule.destination_ports is not None
    return rule.protocol in (None, ICMP6) and not has_ports


def _each(rules: list[AclRule]) -> Iterator[str]:
    for rule in rules:
        match = match_text(rule)
        if match is not None:
            yield f"{match} {_VERB[rule.action]}".lstrip()


def match_text(rule: AclRule) -> str | None:
    """What the rule matches; None if its fields contradict each other: it matches nothing."""
    layer3 = _layer3(rule)
    layer4 = _layer4(rule)
    if layer3 is None or layer4 is None:
        return None
    parts = [
        f"ether saddr {rule.source_mac}" if rule.source_mac else "",
        f"ether daddr {rule.destination_mac}" if rule.destination_mac else "",
        layer3,
        layer4,
    ]
    return " ".join(part for part in parts if part)


def _layer3(rule: AclRule) -> str | None:
    if not _looks_into_ip(rule):
        return "" if rule.ethertype is None else f"ether type 0x{rule.ethertype:04x}"
    types = IP_TYPES if rule.ethertype is None else IP_TYPES & {rule.ethertype}
    parts = []
    for side, prefix in (("saddr", rule.source_prefix), ("daddr", rule.destination_prefix)):
        if prefix is not None:
            is_v6 = ipaddress.ip_network(prefix).version == 6
            types = types & {0x86DD if is_v6 else 0x0800}
            parts.append(f"{'ip6' if is_v6 else 'ip'} {side} {prefix}")
    if not types:
        return None
    first = next(iter(types))
    return " ".join([_ANY_IP if len(types) > 1 else f"ether type 0x{first:04x}", *parts])


def _looks_into_ip(rule: AclRule) -> bool:
    fields = (rule.source_prefix, rule.destination_prefix, rule.protocol)
    return any(field is not None for field in fields) or _needs_transport(rule)


def _needs_transport(rule: AclRule) -> bool:
    fields = (rule.source_ports, rule.destination_ports, rule.icmp_type, rule.icmp_code)
    return any(field is not None for field in fields)


def _layer4(rule: AclRule) -> str | None:
    parts: list[str] = []
    protocols = None if rule.protocol is None else frozenset({rule.protocol})
    for side, ports in (("sport", rule.source_ports), ("dport", rule.destination_ports)):
        if ports is not None:
            protocols = WITH_PORTS if protocols is None else protocols & WITH_PORTS
            parts += [] if ports == ALL_PORTS else [f"th {side} {_range(ports)}"]
    for offset, number in ((0, rule.icmp_type), (8, rule.icmp_code)):
        if number is not None:
            protocols = WITH_TYPES if protocols is None else protocols & WITH_TYPES
            parts.append(f"@th,{offset},8 {number}")
    if protocols is None:
        return ""
    return " ".join([f"meta l4proto {_one_of(protocols)}", *parts]) if protocols else None


def _range(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _one_of(numbers: frozenset[int]) -> str:
    texts = [str(number) for number in sorted(numbers)]
    return texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"
