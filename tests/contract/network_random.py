"""Random policies and frames, small alphabets: so that what a rule names is often what is sent."""

from random import Random

from common.model.profile import (
    ARP,
    ICMP,
    ICMP6,
    IPV4,
    IPV6,
    SCTP,
    TCP,
    UDP,
    Acl,
    AclRule,
    Action,
    Direction,
    PortRange,
    Profile,
)
from vserver.network.frame import BROADCAST, RARP, WITH_PORTS, WITH_TYPES, Frame, link_local

VM, PEER, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:99"
IP4S = ("10.1.0.1", "10.1.0.2", "10.2.0.9")
IP6S = ("2001:db8::1", "2001:db8::2", link_local(VM), link_local(PEER))
_MULTICAST = "33:33:00:00:00:01"
_LLDP = 0x88CC
_EXTENSIONS = ((0,), (60,), (43,), (0, 60), (44,), (60, 44), (44, 60), (44, 43), (44, 44))


def profile(random: Random) -> Profile:
    rules = tuple(_rule(random) for _ in range(random.randrange(7)))
    defaults = [random.choice(list(Action)) for _ in range(2)]
    return Profile(
        acl=Acl(rules, *defaults),
        anti_spoofing=random.choice([True, True, False]),
        router_advertisements=random.choice([None, False, True]),
        dhcp_server=random.choice([None, False, True]),
    )


def _rule(random: Random) -> AclRule:
    one = random.choice
    prefixes4 = ["10.1.0.0/24", "10.1.0.2/32", "0.0.0.0/0"]
    prefixes6 = ["2001:db8::/64", "fe80::/10", "::/0"]
    return AclRule(
        action=one(list(Action)),
        direction=one(list(Direction)),
        source_mac=one([VM, PEER]) if random.random() < 0.1 else None,
        destination_mac=one([VM, PEER, BROADCAST]) if random.random() < 0.15 else None,
        ethertype=one([IPV4, IPV6, ARP, RARP, _LLDP]) if random.random() < 0.4 else None,
        source_prefix=one(prefixes4 + prefixes6) if random.random() < 0.2 else None,
        destination_prefix=one(prefixes4 + prefixes6) if random.random() < 0.2 else None,
        protocol=one([TCP, UDP, SCTP, ICMP, ICMP6, 47]) if random.random() < 0.5 else None,
        source_ports=_ports(random) if random.random() < 0.15 else None,
        destination_ports=_ports(random) if random.random() < 0.3 else None,
        icmp_type=one([8, 128, 135, 136]) if random.random() < 0.1 else None,
        icmp_code=one([0, 1]) if random.random() < 0.05 else None,
    )


def _ports(random: Random) -> PortRange:
    return random.choice([PortRange(22, 22), PortRange(67, 80), PortRange(0, 65535)])


def frame(random: Random, source: str, destination: str) -> Frame:
    """From `source`, mostly; to `destination`, or to all."""
    ethertype = random.choice([IPV4] * 4 + [IPV6] * 4 + [ARP, ARP, RARP, _LLDP, 0x8100, 0x88A8])
    fields: dict[str, object] = {
        "source_mac": random.choice([source] * 8 + [OTHER]),
        "destination_mac": random.choice([destination, destination, BROADCAST, _MULTICAST]),
        "ethertype": ethertype,
        "size": random.choice([64, 200]),
    }
    if ethertype in (ARP, RARP):
        fields["sender_mac"] = random.choice([source] * 4 + [OTHER])
    if ethertype in (ARP, IPV4):
        fields["source_ip"] = random.choice([*IP4S, "0.0.0.0"])
        fields["destination_ip"] = random.choice(IP4S)
    if ethertype == IPV6:
        fields["source_ip"] = random.choice([*IP6S, "::"])
        fields["destination_ip"] = random.choice(IP6S)
    if ethertype in (IPV4, IPV6):
        fields |= _transport(random, ethertype)
    return Frame(**fields)  # type: ignore[arg-type]


def _transport(random: Random, ethertype: int) -> dict[str, object]:
    icmp = ICMP if ethertype == IPV4 else ICMP6
    protocol = random.choice([TCP, UDP, UDP, SCTP, icmp, icmp, 47])
    fields: dict[str, object] = {"protocol": protocol}
    if protocol in WITH_PORTS and random.random() < 0.9:  # else a later fragment
        ports = random.choice([(68, 67), (67, 68), (547, 546), (1024, 22), (1024, 80), (22, 1024)])
        fields["source_port"], fields["destination_port"] = ports
    if protocol in WITH_TYPES:
        types = [8, 0] if icmp == ICMP else [128, 133, 134, 134, 135, 136, 137, 143]
        fields["icmp_type"], fields["icmp_code"] = random.choice(types), random.choice([0, 0, 1])
        if fields["icmp_type"] in (135, 136):
            fields["nd_target"] = random.choice(IP6S)
    is_whole = protocol not in WITH_PORTS or "source_port" in fields
    if ethertype == IPV6 and is_whole and random.random() < 0.3:
        fields["extensions"] = random.choice(_EXTENSIONS)
    return fields
