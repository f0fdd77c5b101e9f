"""Profile files: strict reading, every error at once, and the same profile back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.pb.vsignal.v1 import types_pb2
from vcenter.ctl import profile_file
from vcenter.ctl.profile_reader import ProfileError
from vcenter.ctl.profile_values import format_quantity, parse_quantity

EXAMPLE = """
acl:
  default_ingress: deny
  default_egress: permit
  rules:
    - {name: ping, action: permit, direction: ingress, protocol: icmp}
    - {name: web, action: permit, direction: ingress, protocol: tcp, destination_ports: 80}
    - {action: deny, direction: egress, ethertype: ipv4, source_mac: 10:20:30:40:50:51,
       destination_prefix: 10.1.0.0/16, protocol: 17, source_ports: 8000-8080}
ingress_rate: {bits_per_second: 10M, burst_bytes: 64k}
egress_rate: 10M
vlan: 12
anti_spoofing: true
"""


def test_the_example() -> None:
    profile = profile_file.parse(EXAMPLE)
    first, second, third = profile.acl.rules
    assert profile.acl.default_ingress == types_pb2.ACTION_DENY
    assert (first.name, first.protocol, first.HasField("destination_ports")) == ("ping", 1, False)
    assert (second.destination_ports.first, second.destination_ports.last) == (80, 80)
    assert third.source_mac == "10:20:30:40:50:51"  # not a number in base 60
    assert (third.protocol, third.source_ports.last, third.ethertype) == (17, 8080, 0x0800)
    assert profile.ingress_rate == types_pb2.Rate(bits_per_second=10**7, burst_bytes=64_000)
    assert profile.egress_rate == types_pb2.Rate(bits_per_second=10**7)
    assert (profile.vlan, profile.anti_spoofing) == (12, True)
    assert not profile.HasField("priority")


def test_all_errors_at_once_with_their_paths() -> None:
    text = """
    acl:
      default_ingress: drop
      rules:
        - {action: permit, direction: ingress, protocol: tpc}
        - {action: permit, dport: 80}
        - web
      default: deny
    ingress_rate: {burst_bytes: 64k}
    egress_rate: 10X
    vlan: 4095
    anti_spoofing: yes
    qos: {}
    """
    with pytest.raises(ProfileError) as caught:
        profile_file.parse(text)
    assert [path for path, _ in caught.value.errors] == [
        "acl.default_ingress",
        "acl.rules[0].protocol",
        "acl.rules[1].dport",
        "acl.rules[1]",
        "acl.rules[2]",
        "acl.default",
        "ingress_rate",
        "egress_rate",
        "vlan",
        "anti_spoofing",
        "qos",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("vlan", "expected a mapping"),
        ("[]", "the file is empty"),
        ('{"vlan": 1, "vlan": 2}', "'vlan' is there twice"),
        ('{"vlan": true}', "not 'true'"),
        ("vlan: 1\nvlan: 2", "line 2, column 1: 'vlan' is there twice"),
        ("vlan: [1", "line 1"),
        ("? [a]\n: 1", "a key must be a word"),
        ("vlan: 1\n---\nvlan: 2", "line 2"),
        ("<<: {vlan: 1}", "<<: unknown"),
        ("vlan: 1.5", "from 1 to 4094"),
        ("vlan: -1", "from 1 to 4094"),
        ("vlan:", "from 1 to 4094"),
        ("vlan: \x07", ""),
        ("vlan: " + "[" * 5000, ""),
        ("acl: {rules: " + json.dumps([{}] * 257) + "}", "257 rules; at most 256"),
        ("egress_rate: 7999", "from 8k to 400G"),
        ("egress_rate: 1.0000001k", "whole number"),
        ("acl: {rules: [{action: deny, direction: egress, ethertype: 0x05ff}]}", "0x0600"),
        ("acl: {rules: [{action: deny, direction: egress, source_prefix: 10.0.0.1/8}]}", "prefix"),
        ("acl: {rules: [{action: deny, direction: egress, source_ports: 9-8}]}", "range"),
        ("acl: {rules: [{action: deny, direction: egress, name: [x]}]}", "expected one value"),
    ],
)
def test_refused(text: str, expected: str) -> None:
    with pytest.raises(ProfileError) as caught:
        profile_file.parse(text)
    assert expected in str(caught.value)


def test_an_empty_profile_and_an_empty_acl_are_different() -> None:
    assert profile_file.parse("{}") == types_pb2.Profile()
    assert profile_file.parse("acl: {}").HasField("acl")


def test_a_rule_is_one_line() -> None:
    lines = profile_file.render(profile_file.parse(EXAMPLE)).splitlines()
    rule = "- {name: web, action: permit, direction: ingress, protocol: tcp, destination_ports: 80}"
    assert rule in [line.strip() for line in lines]
    assert "ingress_rate: {bits_per_second: 10M, burst_bytes: 64k}" in lines


@given(st.integers(0, 2**63))
def test_a_quantity_reads_back(number: int) -> None:
    assert parse_quantity(format_quantity(number), 0, 2**63) == number


_MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
_PREFIXES = st.ip_addresses().map(lambda ip: f"{ip}/{ip.max_prefixlen}")


@st.composite
def _port_ranges(draw: st.DrawFn) -> types_pb2.PortRange:
    first = draw(st.integers(0, 65535))
    return types_pb2.PortRange(first=first, last=draw(st.integers(first, 65535)))


def _optional(kind: type, required: dict[str, Any], **fields: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(required, optional=fields).map(lambda given: kind(**given))


_BYTES = st.integers(0, 255)
_RULES = _optional(
    types_pb2.AclRule,
    {"action": st.sampled_from([1, 2]), "direction": st.sampled_from([1, 2])},
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    source_mac=_MACS,
    destination_mac=_MACS,
    ethertype=st.integers(0x0600, 0xFFFF),
    source_prefix=_PREFIXES,
    destination_prefix=_PREFIXES,
    protocol=_BYTES,
    source_ports=_port_ranges(),
    destination_ports=_port_ranges(),
    icmp_type=_BYTES,
    icmp_code=_BYTES,
)
_ACLS = _optional(
    types_pb2.Acl,
    {"rules": st.lists(_RULES, max_size=4)},
    default_ingress=st.sampled_from([1, 2]),
    default_egress=st.sampled_from([1, 2]),
)
_RATES = _optional(
    types_pb2.Rate,
    {"bits_per_second": st.integers(8000, 400 * 10**9)},
    burst_bytes=st.integers(0, 2**32 - 1),
)
PROFILES = _optional(
    types_pb2.Profile,
    {},
    vlan=st.integers(1, 4094),
    acl=_ACLS,
    ingress_rate=_RATES,
    egress_rate=_RATES,
    priority=st.integers(0, 7),
    anti_spoofing=st.booleans(),
    router_advertisements=st.booleans(),
    dhcp_server=st.booleans(),
)


@given(PROFILES)
def test_show_then_set_changes_nothing(profile: types_pb2.Profile) -> None:
    assert profile_file.parse(profile_file.render(profile)) == profile
    assert profile_file.parse("# effective\n" + profile_file.render(profile)) == profile
    assert profile_file.parse(json.dumps(profile_file.to_data(profile))) == profile


@given(st.text(max_size=200))
def test_any_text_is_a_profile_or_an_error(text: str) -> None:
    try:
        profile_file.parse(text)
    except ProfileError as error:
        assert error.errors
