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
from typing import NamedTuple

from common.model.profile import Profile
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState

HEAD = struct.Struct("<QIBQQQ")
PLACE = struct.Struct("<QI")  # the first two: kind and server
KIND = slice(0, 8)  # as it stands in the row
WHERE = slice(8, 21)  # server, state and epoch, as they stand in the row
_KIND = struct.Struct("<Q")
_WHERE = struct.Struct("<IBQ")
_STATE_AT = 12
_REVISION, _REVISION_AT = struct.Struct("<Q"), 29
STATES = tuple(VmState)
STATE_NUMBERS = {state: number for number, state in enumerate(STATES)}
_NAME_TAG = b"\x1a"  # field 3, length-delimited
_MAC_MARK = 1 << 48  # keeps a MAC's number apart from an IPv4 address's
_IPV6_MARK = 1 << 128
_OCTETS = {str(number): number for number in range(256)}


class Port(NamedTuple):
    """An interface without its addresses; `ips` gives the length of each."""

    network: str
    vni: int
    ips: tuple[int, ...]


class Kind(NamedTuple):
    """What many VMs have in common."""

    tenant: str
    group: str
    resources: Resources
    profile: Profile | None
    ports: tuple[Port, ...]

    def name_at(self) -> int:
        """Where in a row of this kind the name starts."""
        return HEAD.size + sum(6 + sum(port.ips) for port in self.ports)


class Parts(NamedTuple):
    """A record taken apart: its kind, its addresses as bytes, its name as a field."""

    kind: Kind
    addresses: bytes
    name: bytes


def take_apart(vm: Vm) -> Parts:
    addresses, ports = [], []
    for interface in vm.interfaces:
        addresses.append(mac_bytes(interface.mac))
        ips = [ip_bytes(ip) for ip in interface.ips]
        addresses += ips
        ports.append(Port(interface.network, interface.vni, tuple(map(len, ips))))
    kind = Kind(vm.tenant, vm.group, vm.resources, vm.profile, tuple(ports))
    return Parts(kind, b"".join(addresses), name_field(vm.name))


def put_together(vm_id: str, kind: Kind, row: bytes, server_id: str, operation_id: str) -> VmRecord:
    _, _, state, epoch, changed_ms, revision = HEAD.unpack_from(row)
    interfaces, at = [], HEAD.size
    for network, vni, lengths in kind.ports:
        mac, at = row[at : at + 6].hex(":"), at + 6
        ips = []
        for length in lengths:
            ips.append(_ip_text(row[at : at + length]))
            at += length
        interfaces.append(Interface(mac, tuple(ips), network, vni))
    name = row[at + (2 if len(row) - at < 130 else 3) :].decode()
    vm = Vm(vm_id, name, kind.tenant, kind.group, tuple(interfaces), kind.profile, kind.resources)
    location = Location(server_id, STATES[state], epoch)
    return VmRecord(vm, location, changed_ms, operation_id, revision)


def head(
    kind: int, server: int, state: VmState, epoch: int, changed_ms: int, revision: int
) -> bytes:
    return HEAD.pack(kind, server, STATE_NUMBERS[state], epoch, changed_ms, revision)


def revision_of(row: bytes) -> int:
    (revision,) = _REVISION.unpack_from(row, _REVISION_AT)
    return int(revision)


def state_number(row: bytes) -> int:
    """Where in `STATES` it stands."""
    return row[_STATE_AT]


def kind_of(part: bytes) -> int:
    """The kind's number, from `row[KIND]`."""
    (number,) = _KIND.unpack(part)
    return int(number)


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


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


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
    found, at = [], 0
    for _, vni, lengths in kind.ports:
        if vni:
            found.append((vni, int.from_bytes(addresses[at : at + 6], "big") | _MAC_MARK))
        at += 6
        for length in lengths:
            if vni:
                number = int.from_bytes(addresses[at : at + length], "big")
                found.append((vni, number if length == 4 else number | _IPV6_MARK))
            at += length
    return found


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
