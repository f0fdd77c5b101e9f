"""VMs from their bytes to the parts of a row, without a record in between.

An encoded VM (the contract's `Vm`) is read by position, fields in order, as protobuf writes them.
Its id, name and addresses are its own; all the rest (tenant, group, networks, profile, resources)
is its shape, which many have in common: that is compared as bytes, and only the first of a shape is
decoded and checked in full. What is not plainly so is left to who reads field by field.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from functools import lru_cache
from socket import AF_INET, inet_pton
from typing import TypeAlias

from google.protobuf.message import DecodeError

from common.codec.checker import Checker
from common.codec.record_bytes import field
from common.codec.vm import from_vm, to_vm
from common.model.identity import parse_ip
from common.pb.vsignal.v1 import types_pb2 as pb
from vcenter.core.packed import Kind, Packed, ip_bytes, take_apart

# Owner; for each interface the sizes of its IP addresses and what follows them; what follows all.
Shape: TypeAlias = tuple[bytes, ...]

LIKE = 20_000  # of one sort that are remembered
_ID = re.compile(rb"\n\$([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})").match
_MAC = re.compile(rb"\n\x11([0-9a-f][02468ace](?::[0-9a-f]{2}){5})").match
_NOBODY = bytes(6)
_SIZES = {4: b"\x04", 16: b"\x10"}
_NIL = b"\n$00000000-0000-0000-0000-000000000000"
_EXAMPLES = {4: b"10.0.0.1", 16: b"fd00::1"}
# Tags of Vm and of Interface, and the sizes of an id and a MAC with theirs.
_NAME, _TENANT, _GROUP, _INTERFACE = 0x12, 0x1A, 0x22, 0x2A
_IP = 0x12
_ID_SIZE, _MAC_SIZE = 38, 19
_MAC_BYTES = 6
_RESULT_NAME = b"\x1a"  # the tag under which rows keep a name (`packed`)


# A vm_id; its name as a field of a LookupResult, and its addresses, as in a row; its shape.
Split: TypeAlias = tuple[str, bytes, bytes, Shape]


def packed(said: bytes) -> Packed | None:
    """None: to be read field by field, for it is wrong, or rare."""
    parts = split(said)
    if parts is None:
        return None
    vm_id, name, addresses, shape = parts
    kind = kind_of(shape)
    return None if kind is None else Packed(vm_id, kind, addresses, name, said)


def split(said: bytes) -> Split | None:
    """None: it is not plainly a VM, or a rare one (names of 128 bytes, say). What is right is only
    what is its own: the shape may still be nonsense, which `kind_of` finds out."""
    try:
        return _split(said)
    except (IndexError, ValueError, OSError):
        return None


def _split(said: bytes) -> Split:
    found = _ID(said)
    if found is None:
        raise ValueError
    at, end, name = _ID_SIZE, len(said), b""
    if at < end and said[at] == _NAME:
        start, at = at + 1, _after(said, at)
        name = _RESULT_NAME + said[start:at]
    start = at
    if at < end and said[at] == _TENANT:
        at += 2 + said[at + 1]
    if at < end and said[at] == _GROUP:
        at += 2 + said[at + 1]
    shape = [said[start:at]]
    addresses: list[bytes] = []
    while at < end and said[at] == _INTERFACE:
        ends = _after(said, at)
        sizes, at = _addresses(said, at + 2, ends, addresses)
        shape += (sizes, said[at:ends])
        at = ends
    if len(shape) > 3:
        _refuse_twins(addresses)
    if at > end:
        raise ValueError
    shape.append(said[at:])
    return found[1].decode(), name, b"".join(addresses), tuple(shape)


def _addresses(said: bytes, at: int, end: int, found: list[bytes]) -> tuple[bytes, int]:
    """Adds an interface's: canonical, and such as may belong to a VM. Returns the sizes of those
    after the MAC, and where they end. Raises ValueError, OSError."""
    mac = _MAC(said, at)
    if mac is None:
        raise ValueError
    found.append(unhexlify(mac[1].replace(b":", b"")))
    if found[-1] == _NOBODY:
        raise ValueError
    at, sizes = at + _MAC_SIZE, b""
    while at < end and said[at] == _IP:
        start, at = at + 2, at + 2 + said[at + 1]
        ip = _ip(said[start:at].decode())
        sizes += _SIZES[len(ip)]
        found.append(ip)
    if at > end:
        raise ValueError
    return sizes, at


def _ip(text: str) -> bytes:
    if ":" in text:
        if parse_ip(text) != text:
            raise ValueError
        return ip_bytes(text)
    ip = inet_pton(AF_INET, text)  # which takes the canonical form alone
    if not 0 < ip[0] < 224:
        raise ValueError
    return ip


def _refuse_twins(addresses: list[bytes]) -> None:
    """One MAC on two interfaces."""
    macs = [address for address in addresses if len(address) == _MAC_BYTES]
    if len(set(macs)) < len(macs):
        raise ValueError


def _after(said: bytes, at: int) -> int:
    """Where the field that starts here ends."""
    size = said[at + 1]
    if not 0 < size < 128:
        raise ValueError
    return at + 2 + size


@lru_cache(LIKE)
def kind_of(shape: Shape) -> Kind | None:
    """What all VMs of this shape are; None: not one of them would be found right as it stands, or
    would be encoded in these bytes. Found out by one that is made for it, read in full."""
    said, addresses = _example(shape)
    check = Checker()
    try:
        vm = from_vm(check, pb.Vm.FromString(said))
    except DecodeError:
        return None
    if check.violations or to_vm(vm).SerializeToString(deterministic=True) != said:
        return None
    parts = take_apart(vm)
    return parts.kind if parts.addresses == addresses else None


def _example(shape: Shape) -> tuple[bytes, bytes]:
    """A VM of the shape, and its addresses as bytes."""
    owner, *interfaces, rest = shape
    said, addresses = [_NIL, owner], []
    for number, (sizes, what_follows) in enumerate(
        zip(interfaces[::2], interfaces[1::2], strict=True)
    ):
        mac = bytes((2, 0, 0, 0, number >> 8, number & 255))
        ips = [_EXAMPLES[size] for size in sizes]
        addresses += [mac, *(ip_bytes(ip.decode()) for ip in ips)]
        texts = [field(b"\x12", ip) for ip in ips]
        port = b"".join((field(b"\n", mac.hex(":").encode()), *texts, what_follows))
        said.append(field(b"*", port))
    return b"".join((*said, rest)), b"".join(addresses)
