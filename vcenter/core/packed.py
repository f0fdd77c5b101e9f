"""VM records as bytes: what is a VM's own, in a row; what many share, once, in a kind.

A record as objects takes more than a kilobyte, and the collector walks all of it. A row takes about
ninety bytes, and the collector does not look at it at all.

    kind  server  state  epoch  changed_ms  revision  | addresses …  | name
    8     4       1      8      8           8           6, 4 or 16     the rest

The name stands as its field of a LookupResult, so that an answer copies it as it is.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from common.model.profile import Profile
from common.model.value import value
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState

HEAD = struct.Struct("<QIBQQQ")
NUMBER = struct.Struct("<Q")  # a kind's, a time, a revision, each by itself
PLACE = struct.Struct("<QI")  # the first two: kind and server
KIND = slice(0, 8)  # as it stands in the row
WHERE = slice(8, 21)  # server, state and epoch, as they stand in the row
SHARED = slice(0, 21)  # all of these together
_WHERE = struct.Struct("<IBQ")
STATE_AT = 12
_REVISION_AT = 29
STATES = tuple(VmState)
STATE_NUMBERS = {state: number for number, state in enumerate(STATES)}
_NAME_TAG = b"\x1a"  # field 3, length-delimited
_MAC_MARK = 1 << 48  # keeps a MAC's number apart from an IPv4 address's
_IPV6_MARK = 1 << 128
_MARKS = {4: 0, 16: _IPV6_MARK}
_LATEST = 8192  # addresses: each is asked for when its VM is checked, then when it is entered
_OCTETS = {str(number): number for number in range(256)}


class Port(NamedTuple):
    """An interface without its addresses; `ips` gives the length of each."""

    network: str
    vni: int
    ips: tuple[int, ...]


@dataclass(slots=True)  # with a hash that is made once: kinds are looked for by the million
class Kind:
    """What many VMs have in common."""

    tenant: str
    group: str
    resources: Resources
    profile: Profile | None
    ports: tuple[Port, ...]
    networks: tuple[str, ...]  # the ports', beside them: whether a VM is on one is asked often
    _hash: int = field(init=False, compare=False, repr=False)
    # Of each claim: its VNI, from where to where in the addresses it stands, and its mark.
    claims: tuple[tuple[int, int, int, int], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.claims = tuple(_claims(self.ports))
        self._hash = hash((self.tenant, self.group, self.resources, self.profile, self.ports))

    def __hash__(self) -> int:
        return self._hash

    def name_at(self) -> int:
        """Where in a row of this kind the name starts."""
        return HEAD.size + sum(6 + sum(port.ips) for port in self.ports)


class Parts(NamedTuple):
    """A VM taken apart: its kind, its addresses as bytes, its name as a field."""

    kind: Kind
    addresses: bytes
    name: bytes


class Entry(NamedTuple):
    """What a record says besides the VM itself."""

    location: Location
    changed_ms: int
    operation_id: str
    revision: int


@value
class Packed:
    """A VM as its row will have it. `encoded`: the same as whoever told of it has put it into
    bytes, which are the store's, too; nothing here looks into them."""

    vm_id: str
    kind: Kind
    addresses: bytes
    name: bytes
    encoded: bytes

    def vm(self) -> Vm:
        return _vm(self.vm_id, self.kind, self.addresses + self.name, 0)

    def is_of(self, row: bytes) -> bool:
        """Whether a row of its kind has its addresses and its name."""
        return row[HEAD.size :] == self.addresses + self.name


def take_apart(vm: Vm) -> Parts:
    addresses, ports = [], []
    networks = tuple([interface.network for interface in vm.interfaces])
    for interface in vm.interfaces:
        addresses.append(mac_bytes(interface.mac))
        ips = [ip_bytes(ip) for ip in interface.ips]
        addresses += ips
        ports.append(Port(interface.network, interface.vni, tuple(map(len, ips))))
    kind = Kind(vm.tenant, vm.group, vm.resources, vm.profile, tuple(ports), networks)
    return Parts(kind, b"".join(addresses), name_field(vm.name))


def put_together(vm_id: str, kind: Kind, row: bytes, server_id: str, operation_id: str) -> VmRecord:
    _, _, state, epoch, changed_ms, revision = HEAD.unpack_from(row)
    location = Location(server_id, STATES[state], epoch)
    vm = _vm(vm_id, kind, row, HEAD.size)
    return VmRecord(vm, location, changed_ms, operation_id, revision)


def _vm(vm_id: str, kind: Kind, row: bytes, at: int) -> Vm:
    """`at`: where in the row its addresses begin, which its name follows."""
    interfaces = []
    for network, vni, lengths in kind.ports:
        mac, at = row[at : at + 6].hex(":"), at + 6
        ips = []
        for length in lengths:
            ips.append(_ip_text(row[at : at + length]))
            at += length
        interfaces.append(Interface(mac, tuple(ips), network, vni))
    name = row[at + (2 if len(row) - at < 130 else 3) :].decode()
    return Vm(vm_id, name, kind.tenant, kind.group, tuple(interfaces), kind.profile, kind.resources)


def head(
    kind: int, server: int, state: VmState, epoch: int, changed_ms: int, revision: int
) -> bytes:
    return HEAD.pack(kind, server, STATE_NUMBERS[state], epoch, changed_ms, revision)


def revision_of(row: bytes) -> int:
    (revision,) = NUMBER.unpack_from(row, _REVISION_AT)
    return int(revision)


def state_number(row: bytes) -> int:
    """Where in `STATES` it stands."""
    return row[STATE_AT]


def kind_of(part: bytes) -> int:
    """The kind's number, from `row[KIND]`."""
    (number,) = NUMBER.unpack(part)
    return int(number)


def where_bytes(server: int, state: VmState, epoch: int) -> bytes:
    """As they stand in the row."""
    return _WHERE.pack(server, STATE_NUMBERS[state], epoch)


def where(part: bytes) -> tuple[int, VmState, int]:
    """The server's number, state and epoch, from `row[WHERE]`."""
    server, state, epoch = _WHERE.unpack(part)
    return server, STATES[state], epoch


def name_field(name: str) -> bytes:
    if not name:
        return b""
    text = name.encode()
    size = len(text)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    return _NAME_TAG + length + text


@lru_cache(_LATEST)
def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@lru_cache(_LATEST)
def ip_bytes(ip: str) -> bytes:
    if ":" in ip:
        return ipaddress.IPv6Address(ip).packed
    return bytes(map(_OCTETS.__getitem__, ip.split(".")))


def _ip_text(packed: bytes) -> str:
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return str(ipaddress.IPv6Address(packed))


def claim_numbers(kind: Kind, addresses: bytes) -> list[tuple[int, int]]:
    """(VNI, number) of every claim; interfaces whose VNI is unknown claim nothing."""
    number = int.from_bytes
    return [(v, number(addresses[at:end], "big") | mark) for v, at, end, mark in kind.claims]


def _claims(ports: Iterable[Port]) -> Iterator[tuple[int, int, int, int]]:
    at = 0
    for _, vni, lengths in ports:
        for length, mark in ((6, _MAC_MARK), *((n, _MARKS[n]) for n in lengths)):
            if vni:
                yield vni, at, at + length, mark
            at += length


def mac_text(number: int) -> str | None:
    """The MAC that is filed under the number; None if it is an IP address's."""
    return number.to_bytes(7, "big")[1:].hex(":") if number >> 48 == 1 else None


def address_number(address: str) -> int:
    """The number under which a claim on this address is filed."""
    if len(address) == 17 and address.count(":") == 5:
        return int.from_bytes(mac_bytes(address), "big") | _MAC_MARK
    packed = ip_bytes(address)
    number = int.from_bytes(packed, "big")
    return number if len(packed) == 4 else number | _IPV6_MARK
