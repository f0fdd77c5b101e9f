"""Questions to guests and their answers, byte by byte against the RFCs."""

import ipaddress
import struct
from dataclasses import replace

import pytest

from vserver.network.linux.exchange import Exchange, exchange
from vserver.network.port import Neighbour
from vserver.network.question import question

GUEST, ASKER, OTHER = "52:54:00:00:00:02", "52:54:00:00:00:01", "52:54:00:00:00:03"
V4, V6 = "10.1.0.2", "2001:db8::2"
ASKER_ALONE = "fe80::5054:ff:fe00:1"  # the link-local address of its MAC: RFC 4291, appendix A


def about(ip: str) -> Exchange:
    return exchange(question(Neighbour(100, GUEST, ip, ASKER)))


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def arp_answer(sender: str = GUEST, ip: str = V4, kind: int = 2) -> bytes:
    head = mac(ASKER) + mac(GUEST) + b"\x08\x06"
    fields = struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind)
    return head + fields + mac(sender) + packed(ip) + mac(ASKER) + packed("0.0.0.0") + bytes(18)


def advertisement(
    to: str = ASKER, sender: str = GUEST, target: str = V6, kind: int = 136, following: int = 58
) -> bytes:
    """As Linux answers a unicast solicitation: solicited, and without its own MAC as an option."""
    head = mac(to) + mac(sender) + b"\x86\xdd"
    packet = struct.pack("!IHBB", 6 << 28, 24, following, 255) + packed(V6) + packed(ASKER_ALONE)
    return head + packet + struct.pack("!BBHI", kind, 0, 0, 0x40000000) + packed(target)


def test_an_arp_probe_names_no_sender() -> None:
    """RFC 5227, 2.1.1, to the guest alone."""
    asked = about(V4).question
    assert asked[:14] == mac(GUEST) + mac(ASKER) + b"\x08\x06"
    assert asked[14:22] == struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    assert asked[22:] == mac(ASKER) + bytes(4) + bytes(6) + packed(V4)


def test_a_solicitation_is_unicast_and_says_where_its_source_is() -> None:
    """RFC 4861: 4.3 and, for what a guest believes, 7.1.1."""
    asked = about(V6).question
    assert asked[:14] == mac(GUEST) + mac(ASKER) + b"\x86\xdd"
    version, length, following, hop_limit = struct.unpack("!IHBB", asked[14:22])
    assert (version >> 28, length, following, hop_limit) == (6, len(asked) - 54, 58, 255)
    assert asked[22:54] == packed(ASKER_ALONE) + packed(V6)
    kind, code, _, reserved = struct.unpack("!BBHI", asked[54:62])
    assert (kind, code, reserved) == (135, 0, 0)
    assert asked[62:78] == packed(V6)
    assert asked[78:] == b"\x01\x01" + mac(ASKER), "the source's link-layer address, one unit long"


@pytest.mark.parametrize("ip", [V6, "fe80::5054:ff:fe00:2", "fd00::ffff:ffff:ffff:ffff"])
def test_a_solicitation_has_the_right_checksum(ip: str) -> None:
    """RFC 8200, 8.1: with it and the pseudo-header, the words' one's complement sum is all ones."""
    asked = about(ip).question
    message = asked[54:]
    covered = asked[22:54] + struct.pack("!I3xB", len(message), 58) + message
    total = sum(int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2))
    assert total % 0xFFFF == 0
    assert message[2:4] != bytes(2)


@pytest.mark.parametrize("ip", [V4, V6])
def test_a_question_is_known_again_and_is_no_answer(ip: str) -> None:
    about_it = about(ip)
    assert about_it.is_question(about_it.question + bytes(18)), "the network may pad it"
    assert not about_it.is_answer(about_it.question)
    assert not about_it.is_question(about_it.question[:-1])


def test_the_guests_answer_is_heard() -> None:
    assert about(V4).is_answer(arp_answer())
    assert about(V6).is_answer(advertisement())
    assert about(V6).is_answer(advertisement() + b"\x02\x01" + mac(GUEST))


@pytest.mark.parametrize(
    "other",
    [arp_answer(kind=1), arp_answer(sender=OTHER), arp_answer(ip="10.1.0.3"), advertisement(), b""],
)
def test_nothing_else_is_an_answer_by_arp(other: bytes) -> None:
    assert not about(V4).is_answer(other)


@pytest.mark.parametrize(
    "other",
    [
        advertisement(to=OTHER),
        advertisement(sender=OTHER),
        advertisement(target="2001:db8::3"),
        advertisement(kind=135),
        advertisement(following=17),
        advertisement()[:60],
        arp_answer(),
    ],
)
def test_nothing_else_is_an_answer_by_advertisement(other: bytes) -> None:
    assert not about(V6).is_answer(other)


@pytest.mark.parametrize(("ip", "found"), [(V4, arp_answer()), (V6, advertisement())])
def test_question_and_answer_have_in_common_what_the_kernel_lets_through(
    ip: str, found: bytes
) -> None:
    about_it = about(ip)
    for frame in (about_it.question, found):
        assert all(frame[at : at + len(piece)] == piece for at, piece in about_it.alike)
    strange = question(replace(Neighbour(100, GUEST, ip, ASKER), ip=V6 if ip == V4 else V4))
    other = exchange(strange).question
    assert not all(other[at : at + len(piece)] == piece for at, piece in about_it.alike)
