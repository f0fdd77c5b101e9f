"""What is read of a lookup at a glance is what reading it in full gives, or is nobody's."""

from __future__ import annotations

import random

import pytest

from common.codec.vm import plain_key
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1.types_pb2 import VmKey
from vcenter.core.packed import address_number
from vcenter.wire import glance

A, B = "0d3b7a52-0000-4000-8000-000000000001", "0d3b7a52-0000-4000-8000-000000000002"


def by_id(vm_id: str) -> VmKey:
    return VmKey(vm_id=vm_id)


def by_mac(vni: int, mac: str) -> VmKey:
    return VmKey(mac=VmKey.MacKey(vni=vni, mac=mac))


def by_ip(vni: int, ip: str) -> VmKey:
    return VmKey(ip=VmKey.IpKey(vni=vni, ip=ip))


def raw(*keys: VmKey, asked: tuple[str, ...] = ()) -> bytes:
    return pb.LookupRequest(keys=keys, asked=asked).SerializeToString()


def in_full(request: bytes) -> tuple[int, int]:
    """As `glance.address`; ValueError: no VM can have it."""
    (key,) = pb.LookupRequest.FromString(request).keys
    claim = plain_key(key).claim
    assert claim is not None
    return claim.vni, address_number(claim.address)


PLAIN = [
    *(by_mac(vni, "52:54:00:ab:cd:ef") for vni in (1, 127, 128, 16_383, 16_384, 16_777_215)),
    *(by_ip(vni, ip) for vni in (1, 300) for ip in ("10.0.0.1", "192.168.255.254", "1.2.3.4")),
    by_mac(7, "52:54:00:AB:CD:EF"),
]


@pytest.mark.parametrize("key", PLAIN, ids=str)
def test_an_address_as_everybody_writes_it(key: VmKey) -> None:
    assert glance.address(raw(key)) == in_full(raw(key))


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        raw(),
        raw(by_id(A)),
        raw(PLAIN[0], PLAIN[0]),
        raw(PLAIN[0], asked=("east",)),
        raw(by_mac(0, "52:54:00:ab:cd:ef")),
        raw(by_mac(7, "52-54-00-ab-cd-ef")),
        raw(by_mac(7, "5254:00ab:cdef:::")),
        raw(by_mac(7, "52:54:00:ab:  :ef")),
        raw(by_mac(7, "10.0.0.1")),
        raw(by_ip(7, "52:54:00:ab:cd:ef")),
        raw(by_ip(7, "10.0.0.01")),
        raw(by_ip(7, "10.0.0")),
        raw(by_ip(7, "10.0.0.1.1")),
        raw(by_ip(7, "10.0.0.256")),
        raw(by_ip(7, "10.0.0.\N{SUPERSCRIPT ONE}")),
        raw(by_ip(7, "fd00::1")),
        raw(by_ip(7, "x" * 200)),
    ],
    ids=repr,
)
def test_anything_else_is_read_in_full(request_: bytes) -> None:
    assert glance.address(request_) is None


def test_whatever_bytes_come() -> None:
    """A few of a good request's bytes are others: it is not seen, or seen as it is in full, or
    what is seen in it is what no VM can have."""
    chance = random.Random(20261122)
    seen = 0
    for _ in range(40_000):
        request = bytearray(raw(chance.choice(PLAIN)))
        for _ in range(chance.randint(1, 3)):
            request[chance.randrange(len(request))] = chance.choice((chance.randrange(256), 48, 58))
        at = glance.address(bytes(request))
        if at is None:
            continue
        seen += 1
        try:
            assert at == in_full(bytes(request)), request
        except ValueError:
            vni, number = at
            assert not 0 < vni < 1 << 24 or _is_nobodys(number), request
    assert seen > 1_000


def _is_nobodys(number: int) -> bool:
    """A multicast MAC or the zero MAC; a multicast IP address, or 0.0.0.0."""
    if number >> 48 == 1:
        return number & 1 << 40 != 0 or number == 1 << 48
    return number >> 28 == 0xE or number == 0


def test_vm_ids() -> None:
    assert glance.vm_id(raw(by_id(A))) == A
    assert list(glance.vm_ids(raw(by_id(A)))) == [A]
    assert glance.vm_id(raw(by_id(A), by_id(B))) == ""
    assert list(glance.vm_ids(raw(by_id(A), by_id(B)))) == [A, B]
    for other in (b"", raw(), raw(PLAIN[0]), raw(PLAIN[0], by_id(A))):
        assert glance.vm_id(other) == "" and list(glance.vm_ids(other)) == []
