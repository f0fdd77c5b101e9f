"""A port survives the kernel's comments; what others wrote there is not taken for one."""

from dataclasses import replace
from random import Random

import pytest

from common.errors import Reason, Refusal
from common.model.profile import Acl, AclRule, Action, Direction, PortRange, Profile, Rate
from tests.contract import network_random
from vserver.network.linux.checked import check_port
from vserver.network.linux.spec import from_comments, to_comments
from vserver.network.linux.table import port_chains
from vserver.network.port import Port

PORT = Port("vnet0", "52:54:00:00:00:01", ("10.1.0.1", "2001:db8::1"), 100, Profile(), True)


@pytest.mark.parametrize("seed", range(30))
def test_there_and_back(seed: int) -> None:
    random = Random(seed)
    rates = Profile(vlan=seed or None, ingress_rate=Rate(10**6 + seed), egress_rate=Rate(8, 15_000))
    port = replace(PORT, profile=rates.over(network_random.profile(random)), is_open=seed % 2 == 0)
    comments = to_comments(port)
    assert from_comments(comments) == replace(port, is_open=False), "the maps say what is open"
    assert all(len(comment) < 128 for comment in comments)


def test_the_largest_profile_fits() -> None:
    rules = [
        AclRule(
            action=Action.DENY,
            direction=Direction.INGRESS,
            name=f'rule "{number}"\n',
            source_prefix=f"10.{number}.0.0/16",
            destination_ports=PortRange(number, 65535),
        )
        for number in range(256)
    ]
    port = replace(PORT, profile=Profile(acl=Acl(tuple(rules))))
    check_port(port)
    assert from_comments(to_comments(port)) == replace(port, is_open=False)


@pytest.mark.parametrize("comments", [[], ["hello"], ["aGVsbG8="], to_comments(PORT)[:-1]])
def test_strange_comments_are_no_port(comments: list[str]) -> None:
    assert from_comments(comments) is None


def test_what_a_person_named_stays_out_of_the_rules() -> None:
    rule = AclRule(Action.DENY, Direction.EGRESS, name='x" ; add table inet evil', protocol=6)
    chains = port_chains(replace(PORT, profile=Profile(acl=Acl((rule,)))))
    assert not any("evil" in line for lines in chains.values() for line in lines)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"mac": "52:54:00:00:00:01 accept"}, "mac"),
        ({"mac": "52-54-00-00-00-01"}, "mac"),
        ({"ips": ("10.1.0.1", "10.1.0.01")}, "ips"),
        ({"ips": ("2001:DB8::1",)}, "ips"),
        ({"vni": 0}, "vni"),
        ({"device": "vnet0/../x"}, "device"),
        ({"device": "sixteen-letters0"}, "device"),
        ({"device": "vnet*"}, "device"),
        ({"profile": Profile(egress_rate=Rate(0))}, "profile.egress_rate"),
        ({"profile": Profile(ingress_rate=Rate(10**6, 2**32))}, "profile.ingress_rate"),
    ],
)
def test_what_is_not_canonical_is_refused(changed: dict[str, object], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_port(replace(PORT, **changed))  # type: ignore[arg-type]
    assert refused.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    "fields",
    [
        {"source_mac": "52:54:00:00:00:01 drop"},
        {"ethertype": 0x10000},
        {"source_prefix": "10.0.0.1/8"},
        {"destination_prefix": "10.0.0.0/8 accept"},
        {"protocol": 256},
        {"source_ports": PortRange(5, 4)},
        {"destination_ports": PortRange(0, 65536)},
        {"icmp_type": -1},
    ],
)
def test_no_rule_gets_by_unchecked(fields: dict[str, object]) -> None:
    rule = AclRule(Action.DENY, Direction.EGRESS, **fields)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as refused:
        check_port(replace(PORT, profile=Profile(acl=Acl((rule,)))))
    assert next(iter(fields)) in refused.value.violations[0].field
