"""Profile files: network policy as people write it, to and from the contract's Profile. Pure.

Strict: what is not known is refused, with its path, and all errors are told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from common.model.profile import MAX_RULES
from common.pb.vsignal.v1 import types_pb2
from vcenter.ctl import profile_values as values
from vcenter.ctl import profile_yaml
from vcenter.ctl.profile_reader import ProfileError, Reader
from vcenter.ctl.profile_yaml import Node
from vcenter.ctl.words import word

_bits = partial(values.parse_quantity, low=8000, high=400 * 10**9)
_burst = partial(values.parse_quantity, low=0, high=2**32 - 1)
_byte = partial(values.parse_number, low=0, high=255)
_RULE: dict[str, Callable[[str], object]] = {
    "name": str,
    "action": values.parse_action,
    "direction": values.parse_direction,
    "source_mac": values.parse_rule_mac,
    "destination_mac": values.parse_rule_mac,
    "ethertype": values.parse_ethertype,
    "source_prefix": values.parse_cidr,
    "destination_prefix": values.parse_cidr,
    "protocol": values.parse_protocol,
    "source_ports": values.parse_ports,
    "destination_ports": values.parse_ports,
    "icmp_type": _byte,
    "icmp_code": _byte,
}
_SWITCHES = ("anti_spoofing", "router_advertisements", "dhcp_server")
_SHOWN: dict[str, Callable[[Any], object]] = {
    "ethertype": values.format_ethertype,
    "protocol": values.format_protocol,
    "source_ports": values.format_ports,
    "destination_ports": values.format_ports,
}


def parse(text: str) -> types_pb2.Profile:
    """The profile in a YAML or JSON document, or ProfileError."""
    reader, profile = Reader(), types_pb2.Profile()
    with reader.at(""):
        node = profile_yaml.load(text)
        if not node:
            raise_unless_empty_mapping(node)
        _profile(reader, node, profile)
    if reader.errors:
        raise ProfileError(reader.errors)
    return profile


def raise_unless_empty_mapping(node: Node) -> None:
    """A file that was truncated must not take a VM's policy away."""
    if not isinstance(node, dict):
        raise ValueError("the file is empty; write {} for a profile that says nothing")


def _profile(reader: Reader, node: Node, into: types_pb2.Profile) -> None:
    vlan = partial(values.parse_number, low=1, high=4094)
    priority = partial(values.parse_number, low=0, high=7)
    known = {
        "acl": lambda n, path: _acl(reader, n, path, into.acl),
        "ingress_rate": lambda n, path: _rate(reader, n, path, into.ingress_rate),
        "egress_rate": lambda n, path: _rate(reader, n, path, into.egress_rate),
        "vlan": reader.scalar(vlan, partial(setattr, into, "vlan")),
        "priority": reader.scalar(priority, partial(setattr, into, "priority")),
    }
    for switch in _SWITCHES:
        known[switch] = reader.scalar(values.parse_switch, partial(setattr, into, switch))
    reader.mapping(node, "", known)


def _rate(reader: Reader, node: Node, path: str, into: types_pb2.Rate) -> None:
    bits = reader.scalar(_bits, partial(setattr, into, "bits_per_second"))
    if isinstance(node, str):
        bits(node, path)
        return
    burst = reader.scalar(_burst, partial(setattr, into, "burst_bytes"))
    reader.mapping(node, path, {"bits_per_second": bits, "burst_bytes": burst})
    if isinstance(node, dict) and "bits_per_second" not in node:
        reader.errors.append((path, "bits_per_second is missing"))


def _acl(reader: Reader, node: Node, path: str, into: types_pb2.Acl) -> None:
    into.SetInParent()  # an ACL without rules is still an ACL
    known = {
        field: reader.scalar(values.parse_action, partial(setattr, into, field))
        for field in ("default_ingress", "default_egress")
    }
    known["rules"] = lambda n, inner: _rules(reader, n, inner, into)
    reader.mapping(node, path, known)


def _rules(reader: Reader, node: Node, path: str, into: types_pb2.Acl) -> None:
    if not isinstance(node, list):
        reader.errors.append((path, "expected a list of rules"))
    elif len(node) > MAX_RULES:
        reader.errors.append((path, f"{len(node)} rules; at most {MAX_RULES}"))
    else:
        for index, rule in enumerate(node):
            _rule(reader, rule, f"{path}[{index}]", into.rules.add())


def _rule(reader: Reader, node: Node, path: str, into: types_pb2.AclRule) -> None:
    def store(field: str, value: object) -> None:
        if isinstance(value, types_pb2.PortRange):
            getattr(into, field).CopyFrom(value)
            getattr(into, field).SetInParent()
        else:
            setattr(into, field, value)

    known = {f: reader.scalar(parse, partial(store, f)) for f, parse in _RULE.items()}
    reader.mapping(node, path, known)
    for field in ("action", "direction"):
        if isinstance(node, dict) and field not in node:
            reader.errors.append((path, f"{field} is missing"))


def to_data(profile: types_pb2.Profile) -> dict[str, Any]:
    """The file's structure: what `parse` reads back as the same profile."""
    data: dict[str, Any] = {}
    if profile.HasField("acl"):
        data["acl"] = _acl_data(profile.acl)
    if profile.HasField("ingress_rate"):
        data["ingress_rate"] = _rate_data(profile.ingress_rate)
    if profile.HasField("egress_rate"):
        data["egress_rate"] = _rate_data(profile.egress_rate)
    for field in ("vlan", "priority", "anti_spoofing", "router_advertisements", "dhcp_server"):
        if profile.HasField(field):
            data[field] = getattr(profile, field)
    return data


def render(profile: types_pb2.Profile) -> str:
    """The file, in YAML."""
    return profile_yaml.dump(to_data(profile))


def _rate_data(rate: types_pb2.Rate) -> object:
    bits = values.format_quantity(rate.bits_per_second)
    if not rate.burst_bytes:
        return bits
    return {"bits_per_second": bits, "burst_bytes": values.format_quantity(rate.burst_bytes)}


def _acl_data(acl: types_pb2.Acl) -> dict[str, Any]:
    data: dict[str, Any] = {
        field: word(acl, field)
        for field in ("default_ingress", "default_egress")
        if getattr(acl, field)
    }
    if acl.rules:
        data["rules"] = [_rule_data(rule) for rule in acl.rules]
    return data


def _rule_data(rule: types_pb2.AclRule) -> dict[str, Any]:
    data: dict[str, Any] = {}
    present = {field.name: value for field, value in rule.ListFields()}
    for field in _RULE:  # in the order in which people read a rule
        if field in ("action", "direction"):
            data[field] = word(rule, field)
        elif field in present:
            show = _SHOWN.get(field)
            data[field] = show(present[field]) if show else present[field]
    return data
