"""Identities and claims (draft 3.5; closes A6).

`vm_id` identifies a VM for life. `(vni, MAC)` and `(vni, IP)` are unique claims that point to it.
The parsers take what people write and give the canonical form, or raise ValueError.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from functools import lru_cache
from typing import NamedTuple

MAX_VNI = 2**24 - 1  # RFC 7348, section 5: 24 bits; 0 is not used
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_ZERO_MAC = "00:00:00:00:00:00"
# Canonical already, as most of what we are told is: these need no parser, which takes ten times as
# long. Everything else, and every refusal, goes through the parser.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNICAST_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_UNICAST = re.compile(rf"(?:[1-9]|[1-9][0-9]|1[0-9][0-9]|2[01][0-9]|22[0-3])(?:\.{_OCTET}){{3}}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Claim(NamedTuple):
    """What one VM at a time may hold: an address inside a VNI. Canonical text on both sides."""

    vni: int
    address: str  # a MAC or an IP; their texts never collide


def parse_vm_id(text: str) -> str:
    """Canonical UUID text."""
    if _UUID.fullmatch(text):
        return text
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError(f"not a UUID: {text!r}") from None


def parse_any_mac(text: str) -> str:
    """Lower case with colons, multicast and broadcast included: what a rule may match."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"not a MAC address: {text!r}")
    return text.lower().replace("-", ":")


def parse_mac(text: str) -> str:
    """Lower case with colons; a multicast or all-zero address identifies nobody (IEEE 802)."""
    if _UNICAST_MAC.fullmatch(text) and text != _ZERO_MAC:
        return text
    mac = parse_any_mac(text)
    if int(mac[:2], 16) & 1:
        raise ValueError(f"a multicast MAC identifies no interface: {text!r}")
    if mac == _ZERO_MAC:
        raise ValueError("the zero MAC identifies no interface")
    return mac


def parse_ip(text: str) -> str:
    """Canonical IPv4 or IPv6 text (RFC 5952); unicast only."""
    if _UNICAST.fullmatch(text):
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"not an IP address: {text!r}") from None
    if address.is_multicast or address.is_unspecified or getattr(address, "scope_id", None):
        raise ValueError(f"not an address that a VM can own: {text!r}")
    return str(address)


def parse_prefix(text: str) -> str:
    """Canonical CIDR; host bits must be zero, so that a typing error is seen."""
    try:
        return str(ipaddress.ip_network(text, strict=True))
    except ValueError as error:
        raise ValueError(f"not a prefix: {error}") from None


def parse_vni(number: int) -> int:
    """1..16777215."""
    if not 1 <= number <= MAX_VNI:
        raise ValueError(f"a VNI is 1..{MAX_VNI}, not {number}")
    return number


@lru_cache(4096)  # there are few of them, and each is said of many VMs
def parse_name(text: str) -> str:
    """A tenant, network, group or vServer id: a DNS label, so that it is safe everywhere."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"use 1..63 of a-z, 0-9 and inner '-': {text!r}")
    return text
