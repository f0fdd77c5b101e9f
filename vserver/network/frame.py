"""A frame as far as policy looks into it, and the facts about addresses that policy rests on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from common.model.profile import ARP, ICMP, ICMP6, IPV4, IPV6, SCTP, TCP, UDP, PortRange

RARP = 0x8035
VLAN_TAGS = frozenset({0x8100, 0x88A8})
IP_TYPES = frozenset({IPV4, IPV6})
WITH_PORTS = frozenset({TCP, UDP, SCTP})
ALL_PORTS = PortRange(0, 65535)
WITH_TYPES = frozenset({ICMP, ICMP6})

ROUTER_ADVERTISEMENT, REDIRECT = 134, 137
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
DISCOVERY_AND_REDIRECTS = frozenset(range(133, 138))  # RFC 6980: never in fragments
NEIGHBOUR_DISCOVERY = frozenset({133, 134, 135, 136})  # RFC 4861, without redirects

HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60  # IPv6 extension headers (RFC 8200)

BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Frame:
    """Headers only. For ARP the IP fields are the protocol addresses (sender, target).

    A second or later fragment has a protocol and no ports, as on the wire.
    """

    source_mac: str
    destination_mac: str
    ethertype: int
    source_ip: str = ""
    destination_ip: str = ""
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    sender_mac: str = ""  # ARP and RARP: the sender's hardware address
    nd_target: str = ""  # neighbour discovery: whom it is about
    extensions: tuple[int, ...] = ()  # of IPv6, in order; FRAGMENT: the first of its fragments
    size: int = 64

    @property
    def is_ip(self) -> bool:
        return self.ethertype in IP_TYPES

    @property
    def is_neighbour_protocol(self) -> bool:
        """ARP, RARP, ND: without these nothing else works, so ACLs treat them apart."""
        if self.ethertype in (ARP, RARP):
            return True
        is_icmp6 = self.ethertype == IPV6 and self.protocol == ICMP6
        return is_icmp6 and self.icmp_type in NEIGHBOUR_DISCOVERY


def is_multicast(mac: str) -> bool:
    """Broadcast included (IEEE 802: the group bit)."""
    return bool(int(mac[:2], 16) & 1)


def link_local(mac: str) -> str:
    """The IPv6 link-local address that a MAC gives (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    eui64 = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + eui64))


def of_family(ips: tuple[str, ...], version: int) -> tuple[str, ...]:
    """The addresses of one IP version, in their order."""
    return tuple(ip for ip in ips if ipaddress.ip_address(ip).version == version)
