"""Anti-spoofing as nftables rules: `policy.is_genuine`, in the kernel's words.

Every rule here drops; what none of them drops goes on to rate and ACL. Several `!=` in a line take
the place of a set, because reading a set back costs a round trip to the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from common.model.profile import Profile
from vserver.network.frame import link_local, of_family
from vserver.network.port import Port

_ARP, _RARP = "ether type 0x0806", "ether type 0x8035"
_IP4, _IP6 = "ether type 0x0800", "ether type 0x86dd"
_HEADERS = ("0", "43-44", "60")  # more of them, behind a fragment header
_ICMP6 = f"{_IP6} meta l4proto 58 @th,0,8"


def genuine(port: Port) -> list[str]:
    """The rules that a frame from this port's VM has to survive."""
    rules = [
        f"ether saddr != {port.mac} drop",
        "ether type 0x8100 drop",
        "ether type 0x88a8 drop",
        f"{_ARP} arp saddr ether != {port.mac} drop",
        f"{_RARP} @nh,64,48 != 0x{port.mac.replace(':', '')} drop",
        f"{_IP6} exthdr frag exists meta l4proto 58 @th,0,8 133-137 drop",
        *(f"{_IP6} frag nexthdr {header} drop" for header in _HEADERS),
        f"{_ICMP6} 137 drop",
        *_privileged(port.profile),
    ]
    return rules + _addresses(port) if port.ips else rules


def _privileged(profile: Profile) -> Iterator[str]:
    """What a profile may permit."""
    if not profile.router_advertisements:
        yield f"{_ICMP6} 134 drop"
    if not profile.dhcp_server:
        yield f"{_IP4} meta l4proto 17 th sport 67 th dport 68 drop"
        yield f"{_IP6} meta l4proto 17 th sport 547 th dport 546 drop"


def _addresses(port: Port) -> list[str]:
    own4 = of_family(port.ips, 4)
    own6 = (link_local(port.mac), *of_family(port.ips, 6))
    return [
        f"{_ARP} {_none_of('arp saddr ip', ('0.0.0.0', *own4))} drop",
        f"{_IP4} {_none_of('ip saddr', ('0.0.0.0', *own4))} drop",
        f"{_IP4} ip saddr 0.0.0.0 meta l4proto != 17 drop",
        f"{_IP4} ip saddr 0.0.0.0 ip frag-off & 0x1fff != 0 drop",
        f"{_IP4} ip saddr 0.0.0.0 meta l4proto 17 th sport != 68 drop",
        f"{_IP4} ip saddr 0.0.0.0 meta l4proto 17 th dport != 67 drop",
        f"{_IP6} {_none_of('ip6 saddr', ('::', *own6))} drop",
        f"{_IP6} ip6 saddr :: meta l4proto != 58 drop",
        f"{_ICMP6} 136 {_none_of('@th,64,128', [_hex(ip) for ip in own6])} drop",
    ]


def _none_of(key: str, values: Iterable[str]) -> str:
    return " ".join(f"{key} != {value}" for value in dict.fromkeys(values))


def _hex(ip: str) -> str:
    return f"0x{int(ipaddress.IPv6Address(ip)):032x}"
