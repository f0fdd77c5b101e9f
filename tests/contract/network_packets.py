"""`Frame` values as the bytes that go on a wire."""

import ipaddress
import struct

from common.model.profile import ARP, IPV4, TCP, UDP
from vserver.network.frame import FRAGMENT, RARP, ROUTING, VLAN_TAGS, WITH_PORTS, WITH_TYPES, Frame


def to_bytes(frame: Frame, trailer: bytes) -> bytes:
    """The frame with a trailer inside its payload, by which it is known again."""
    head = _mac(frame.destination_mac) + _mac(frame.source_mac) + struct.pack("!H", frame.ethertype)
    body = _body(frame, trailer.rjust(max(frame.size - 60, len(trailer)), b"."))
    return head + body


def _body(frame: Frame, payload: bytes) -> bytes:
    if frame.ethertype in (ARP, RARP):
        return _arp(frame) + payload
    if frame.ethertype in VLAN_TAGS:
        return struct.pack("!HH", 7, IPV4) + _ipv4(frame, payload)
    if frame.is_ip:
        return _ipv4(frame, payload) if frame.ethertype == IPV4 else _ipv6(frame, payload)
    return payload


def _arp(frame: Frame) -> bytes:
    operation = 3 if frame.ethertype == RARP else 1
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    target = frame.sender_mac if frame.ethertype == RARP else "00:00:00:00:00:00"
    sender_ip, target_ip = (_ip(ip or "0.0.0.0") for ip in (frame.source_ip, frame.destination_ip))
    return head + _mac(frame.sender_mac) + sender_ip + _mac(target) + target_ip


def _ipv4(frame: Frame, payload: bytes) -> bytes:
    data = _transport(frame, payload)
    offset = 1 if _is_later_fragment(frame) else 0
    fields = (0x45, 0, 20 + len(data), 0, offset, 64, frame.protocol or 0)
    addresses = _ip(frame.source_ip or "0.0.0.0") + _ip(frame.destination_ip or "0.0.0.0")
    bare = struct.pack("!BBHHHBBH", *fields, 0) + addresses
    return struct.pack("!BBHHHBBH", *fields, _checksum(bare)) + addresses + data


def _ipv6(frame: Frame, payload: bytes) -> bytes:
    data, following = _transport(frame, payload), frame.protocol or 59
    for kind in reversed(frame.extensions):
        data, following = _extension(kind, following) + data, kind
    if _is_later_fragment(frame):
        data, following = struct.pack("!BBHI", following, 0, 8, 1) + data, 44
    head = struct.pack("!IHBB", 6 << 28, len(data), following, 255)
    return head + _ip(frame.source_ip) + _ip(frame.destination_ip) + data


def _extension(kind: int, following: int) -> bytes:
    """Eight bytes: the first fragment of several, options that pad, or a route that is over."""
    if kind == FRAGMENT:
        return struct.pack("!BBHI", following, 0, 1, 1)
    return struct.pack("!BB", following, 0) + (bytes(6) if kind == ROUTING else b"\1\4" + bytes(4))


def _is_later_fragment(frame: Frame) -> bool:
    return frame.protocol in WITH_PORTS and frame.source_port is None


def _transport(frame: Frame, payload: bytes) -> bytes:
    if frame.protocol in WITH_TYPES:
        head = struct.pack("!BBHI", frame.icmp_type or 0, frame.icmp_code or 0, 0, 0)
        target = _ip(frame.nd_target) if frame.nd_target else b""
        return head + target + payload
    if frame.protocol not in WITH_PORTS or _is_later_fragment(frame):
        return payload
    ports = struct.pack("!HH", frame.source_port or 0, frame.destination_port or 0)
    if frame.protocol == UDP:
        return ports + struct.pack("!HH", 8 + len(payload), 0) + payload
    rest = struct.pack("!IIHHHH", 0, 0, 0x5002, 1024, 0, 0) if frame.protocol == TCP else bytes(8)
    return ports + rest + payload


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
