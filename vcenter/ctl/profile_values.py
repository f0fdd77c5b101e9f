"""The scalars of a profile file: text to number or canonical text, and back. Pure.

Each `parse_` raises ValueError with a text for the person who wrote the file.
"""

from __future__ import annotations

import re

from common.model import profile
from common.model.identity import parse_prefix
from common.pb.vsignal.v1 import types_pb2

PROTOCOLS = {
    "tcp": profile.TCP,
    "udp": profile.UDP,
    "sctp": profile.SCTP,
    "icmp": profile.ICMP,
    "icmp6": profile.ICMP6,
}
ETHERTYPES = {"ipv4": profile.IPV4, "ipv6": profile.IPV6, "arp": profile.ARP}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_ETHERTYPE_NAMES = {number: name for name, number in ETHERTYPES.items()}
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


def parse_number(text: str, low: int, high: int) -> int:
    """A decimal number within bounds."""
    if not re.fullmatch(r"[0-9]{1,20}", text) or not low <= int(text) <= high:
        raise ValueError(f"expected a number from {low} to {high}, not {text!r}")
    return int(text)


def parse_quantity(text: str, low: int, high: int) -> int:
    """`9600`, `64k`, `1.5M`, `10G`: k, M, G are thousands; Ki, Mi, Gi are powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?([kMG]?|[KMG]i)", text)
    if not match:
        raise ValueError(f"expected a number such as 9600, 64k, 10M or 1G, not {text!r}")
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scaled = int(whole + fraction) * (_DECIMAL | _BINARY)[unit]
    number, rest = divmod(scaled, 10 ** len(fraction))
    if rest or not low <= number <= high:
        bounds = f"{format_quantity(low)} to {format_quantity(high)}"
        raise ValueError(f"expected a whole number from {bounds}, not {text!r}")
    return int(number)


def format_quantity(number: int) -> str:
    """The shortest exact text, with a unit where one divides the number."""
    for units in (_DECIMAL, _BINARY):
        for unit, factor in reversed(units.items()):
            if number and factor > 1 and number % factor == 0:
                return f"{number // factor}{unit}"
    return str(number)


def parse_switch(text: str) -> bool:
    """`true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(f"expected true or false, not {text!r}")
    return text == "true"


def parse_protocol(text: str) -> int:
    """A name, or an IANA number."""
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    try:
        return parse_number(text, 0, 255)
    except ValueError:
        names = ", ".join(PROTOCOLS)
        raise ValueError(f"expected {names} or a number to 255, not {text!r}") from None


def format_protocol(number: int) -> str | int:
    """Its name if it has one."""
    return _PROTOCOL_NAMES.get(number, number)


def parse_ethertype(text: str) -> int:
    """A name, or hexadecimal with 0x."""
    if text in ETHERTYPES:
        return ETHERTYPES[text]
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,4}", text) or int(text, 16) < 0x0600:
        names = ", ".join(ETHERTYPES)
        raise ValueError(f"expected {names} or 0x0600 to 0xffff, not {text!r}")
    return int(text, 16)


def format_ethertype(number: int) -> str:
    """Its name if it has one, else hexadecimal."""
    return _ETHERTYPE_NAMES.get(number, f"0x{number:04x}")


def parse_ports(text: str) -> types_pb2.PortRange:
    """`80` or `8000-8080`."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= 65535:
        raise ValueError(f"expected a port or a range such as 8000-8080, not {text!r}")
    return types_pb2.PortRange(first=first, last=last)


def format_ports(ports: types_pb2.PortRange) -> str | int:
    """A range of one port is that port."""
    return ports.first if ports.first == ports.last else f"{ports.first}-{ports.last}"


def parse_rule_mac(text: str) -> str:
    """Lower case with colons; a rule may match broadcast and multicast too."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"expected a MAC address, not {text!r}")
    return mac


def parse_cidr(text: str) -> str:
    """Canonical CIDR; an address alone is a prefix that holds only it."""
    return parse_prefix(text)


def parse_action(text: str) -> types_pb2.Action.ValueType:
    """`permit` or `deny`."""
    match text:
        case "permit":
            return types_pb2.ACTION_PERMIT
        case "deny":
            return types_pb2.ACTION_DENY
    raise ValueError(f"expected permit or deny, not {text!r}")


def parse_direction(text: str) -> types_pb2.Direction.ValueType:
    """`ingress` is towards the VM, `egress` from it."""
    match text:
        case "ingress":
            return types_pb2.DIRECTION_INGRESS
        case "egress":
            return types_pb2.DIRECTION_EGRESS
    raise ValueError(f"expected ingress (towards the VM) or egress, not {text!r}")
