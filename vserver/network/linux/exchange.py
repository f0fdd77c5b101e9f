"""A question to a guest and its answer as they are on the wire, in bytes. Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from common.model.profile import ARP, ICMP6, IPV4
from vserver.network.frame import Frame
from vserver.network.question import answer

Pieces = tuple[tuple[int, bytes], ...]  # bytes, and where they are in a frame

_TYPE, _ARP_KIND, _ARP_SENDER, _ARP_SENDER_IP = 12, 20, 22, 28  # from the frame's first byte on
_NEXT_HEADER, _ICMP, _TARGET = 20, 54, 62
_ETHERNET, _REQUEST, _REPLY = 1, 1, 2
_HOP_LIMIT = 255  # nothing that was routed is believed: RFC 4861, 7.1
_SOURCE_MAC, _OCTETS_8 = 1, 1  # the option's type, and its length


@dataclass(frozen=True, slots=True)
class Exchange:
    """`alike`: what question and answer have in common, and little else has."""

    question: bytes
    alike: Pieces
    answer: Pieces

    def is_question(self, frame: bytes) -> bool:
        """Ours, on its way; the network may have padded it."""
        return frame.startswith(self.question)

    def is_answer(self, frame: bytes) -> bool:
        """The guest's own word that it has the address, to the asker."""
        return all(frame[at : at + len(piece)] == piece for at, piece in self.answer)


def exchange(asked: Frame) -> Exchange:
    """Of a question that `question` has made."""
    return _arp(asked) if asked.ethertype == ARP else _discovery(asked)


def _head(frame: Frame) -> bytes:
    addresses = _mac(frame.destination_mac) + _mac(frame.source_mac)
    return addresses + struct.pack("!H", frame.ethertype)


def _arp(asked: Frame) -> Exchange:
    reply = answer(asked)
    fields = struct.pack("!HHBBH", _ETHERNET, IPV4, 6, 4, _REQUEST)
    sender = _mac(asked.sender_mac) + _ip(asked.source_ip)
    found = (
        (0, _mac(reply.destination_mac)),
        (_TYPE, struct.pack("!H", ARP)),
        (_ARP_KIND, struct.pack("!H", _REPLY)),
        (_ARP_SENDER, _mac(reply.sender_mac)),
        (_ARP_SENDER_IP, _ip(reply.source_ip)),
    )
    nobody = bytes(6)
    whole = _head(asked) + fields + sender + nobody + _ip(asked.destination_ip)
    return Exchange(whole, found[1:2], found)


def _discovery(asked: Frame) -> Exchange:
    """What is about the same target by ICMPv6 is alike; the answer need not name its MAC again."""
    reply = answer(asked)
    alike = (
        (_TYPE, struct.pack("!H", asked.ethertype)),
        (_NEXT_HEADER, bytes([ICMP6])),
        (_TARGET, _ip(asked.nd_target)),
    )
    found = (
        (0, _head(reply)),
        (_ICMP, bytes([reply.icmp_type or 0, reply.icmp_code or 0])),
        *alike,
    )
    return Exchange(_head(asked) + _solicitation(asked), alike, found)


def _solicitation(asked: Frame) -> bytes:
    """RFC 4861, 4.3, in an IPv6 packet."""
    source, destination = _ip(asked.source_ip), _ip(asked.destination_ip)
    option = bytes([_SOURCE_MAC, _OCTETS_8]) + _mac(asked.source_mac)
    kind = bytes([asked.icmp_type or 0, asked.icmp_code or 0])
    body = bytes(4) + _ip(asked.nd_target) + option
    length = len(kind) + 2 + len(body)
    pseudo = source + destination + struct.pack("!II", length, ICMP6)  # RFC 8200, 8.1
    checksum = struct.pack("!H", _checksum(pseudo + kind + bytes(2) + body))
    head = struct.pack("!IHBB", 6 << 28, length, ICMP6, _HOP_LIMIT) + source + destination
    return head + kind + checksum + body


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - int(total)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed
