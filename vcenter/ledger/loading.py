"""From the store's snapshot into the table, quickly: a start with a million VMs takes seconds.

VMs that look like another one read before (same tenant, group, networks, number of addresses) go
from the wire into their row. Whatever is not plainly in canonical form takes the long way, which
checks every field and says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from common.codec.enums import VM_STATE
from common.model.vm import VmRecord, VmState
from common.pb.vsignal.v1 import types_pb2 as pb
from vcenter.core import packed
from vcenter.core.keys import VM
from vcenter.core.table import Change, Table
from vcenter.ledger.records import decode
from vcenter.store.port import Record

_VM_KEY = re.compile(r"vm/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}").fullmatch
_NOBODY = "00:00:00:00:00:00"
_STATES: dict[int, VmState] = {VM_STATE.to(state): state for state in VmState}
_Shape = tuple[object, ...]


class Loader:
    """Fills one table. Raises `records.Unreadable`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kinds: dict[_Shape, int] = {}

    def add(self, record: Record) -> None:
        if not _VM_KEY(record.key) or not self._quickly(record):
            change = Change(record.key, decode(record.key, record.value))
            self._table.apply(record.revision, [change])

    def _quickly(self, record: Record) -> bool:
        try:
            wire = pb.VmRecord.FromString(record.value)
        except DecodeError:
            return False
        vm, vm_id = wire.vm, record.key[len(VM) :]
        name, resources, location = vm.name, vm.resources, wire.location
        state = _STATES.get(location.state)
        if vm.vm_id != vm_id or wire.operation_id or vm.HasField("profile"):
            return False
        if state is None or len(name) > 60:
            return False
        shape: list[object] = [vm.tenant, vm.group, resources.vcpus, resources.memory_mib]
        addresses = b""
        for nic in vm.interfaces:
            ips = nic.ips
            try:
                addresses += _read_addresses(nic.mac, ips)
            except (KeyError, ValueError):
                return False
            shape += (nic.network, nic.vni, len(ips))
        at = wire.changed_at
        self._table.vms.insert(
            vm_id,
            self._kind(tuple(shape), record),
            addresses,
            packed.name_field(name),
            location.server_id,
            state,
            location.epoch,
            at.seconds * 1000 + at.nanos // 1_000_000,
            record.revision,
        )
        return True

    def _kind(self, shape: _Shape, record: Record) -> int:
        """The first of its shape is checked in full."""
        kind = self._kinds.get(shape)
        if kind is None:
            checked = decode(record.key, record.value)
            assert isinstance(checked, VmRecord), "by its key"
            number = self._table.vms.number_of(packed.take_apart(checked.vm).kind)
            kind = self._kinds[shape] = number
        return kind


def _read_addresses(mac: str, ips: Iterable[str]) -> bytes:
    """Raises ValueError or KeyError unless all of them are in canonical form, IPv4, and may belong
    to a VM."""
    if not _MAC(mac) or mac == _NOBODY:
        raise ValueError(mac)
    found = packed.mac_bytes(mac)
    for ip in ips:
        packed_ip = packed.ip_bytes(ip)
        if len(packed_ip) != 4 or not 0 < packed_ip[0] < 224:
            raise ValueError(ip)
        found += packed_ip
    return found
