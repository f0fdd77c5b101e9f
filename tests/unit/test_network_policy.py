"""The meaning of a policy, case by case; the contract suite holds the kernel to the same."""

from dataclasses import replace

import pytest

from common.model.profile import (
    IPV4,
    IPV6,
    TCP,
    UDP,
    Acl,
    AclRule,
    Action,
    Direction,
    PortRange,
    Profile,
)
from vserver.network.frame import Frame, is_multicast, link_local
from vserver.network.policy import matches, verdict
from vserver.network.port import Port

VM, PEER = "52:54:00:00:00:01", "52:54:00:00:00:02"
PORT = Port("vnet0", VM, ("10.1.0.1",), 100, Profile(), is_open=True)
WEB = Frame(VM, PEER, IPV4, "10.1.0.1", "10.1.0.2", TCP, 1024, 80)


def rule(**fields: object) -> AclRule:
    return AclRule(Action.DENY, Direction.EGRESS, **fields)  # type: ignore[arg-type]


def test_a_closed_port_passes_nothing_whatever_its_profile() -> None:
    closed = replace(PORT, is_open=False, profile=Profile(anti_spoofing=False))
    assert not any(verdict(closed, direction, WEB) for direction in Direction)


def test_forgery_is_a_matter_of_egress() -> None:
    foreign = replace(WEB, source_mac=PEER)
    assert not verdict(PORT, Direction.EGRESS, foreign)
    assert verdict(PORT, Direction.INGRESS, foreign)


def test_the_first_match_decides() -> None:
    permit = replace(rule(protocol=TCP), action=Action.PERMIT)
    for rules, passes in (((permit, rule()), True), ((rule(), permit), False)):
        port = replace(PORT, profile=Profile(acl=Acl(rules)))
        assert verdict(port, Direction.EGRESS, WEB) is passes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"ethertype": IPV6}, False),
        ({"source_mac": VM, "destination_mac": PEER}, True),
        ({"source_prefix": "10.1.0.0/24", "destination_prefix": "10.1.0.2/32"}, True),
        ({"source_prefix": "::/0"}, False),
        ({"protocol": UDP}, False),
        ({"destination_ports": PortRange(80, 80)}, True),
        ({"source_ports": PortRange(80, 80)}, False),
        ({"protocol": UDP, "destination_ports": PortRange(80, 80)}, False),
        ({"icmp_type": 80}, False),
    ],
)
def test_every_field_has_to_fit(fields: dict[str, object], expected: bool) -> None:
    assert matches(rule(**fields), WEB) is expected


def test_a_later_fragment_has_no_ports() -> None:
    fragment = replace(WEB, source_port=None, destination_port=None)
    assert not matches(rule(destination_ports=PortRange(1, 65535)), fragment)
    assert matches(rule(destination_ports=PortRange(0, 65535)), fragment)
    assert matches(rule(protocol=TCP), fragment)


def test_addresses() -> None:
    assert link_local(VM) == "fe80::5054:ff:fe00:1"
    assert is_multicast("01:00:5e:00:00:01") and not is_multicast(VM)
