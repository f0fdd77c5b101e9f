"""Records as the store keeps them: the contract's own messages, serialized.

The revision is not in the value: it is the store's, and comes with the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from common.codec import operation as op
from common.codec import server as srv
from common.codec import vm
from common.codec.checker import Checker
from common.codec.times import from_timestamp, to_timestamp
from common.model.operation import Operation
from common.model.server import Alert, Group, Server, Tenant, VirtualNetwork
from common.model.vm import Tombstone, VmRecord
from common.pb.vsignal.v1 import operations_pb2, storage_pb2, types_pb2
from vcenter.core.keys import Ledgered


class Unreadable(Exception):
    """A stored record that this release cannot read."""


def _to_tombstone(grave: Tombstone) -> storage_pb2.Tombstone:
    return storage_pb2.Tombstone(
        vm_id=grave.vm_id,
        epoch=grave.epoch,
        changed_at=to_timestamp(grave.changed_ms),
        last=vm.to_record(grave.last),
    )


def _from_tombstone(check: Checker, wire: storage_pb2.Tombstone) -> Tombstone:
    last = vm.from_record(check, wire.last)
    return Tombstone(wire.vm_id, wire.epoch, from_timestamp(wire.changed_at), last)


@dataclass(frozen=True, slots=True)
class _Kind:
    prefix: str
    record: type
    message: type[Message]
    to: Callable[[Any], Message]
    read: Callable[[Checker, Any], Ledgered]


_KINDS = (
    _Kind("vm", VmRecord, types_pb2.VmRecord, vm.to_record, vm.from_record),
    _Kind("gone", Tombstone, storage_pb2.Tombstone, _to_tombstone, _from_tombstone),
    _Kind("server", Server, types_pb2.Server, srv.to_server, srv.from_server),
    _Kind("tenant", Tenant, types_pb2.Tenant, srv.to_tenant, srv.from_tenant),
    _Kind("network", VirtualNetwork, types_pb2.VirtualNetwork, srv.to_network, srv.from_network),
    _Kind("group", Group, types_pb2.Group, srv.to_group, srv.from_group),
    _Kind("op", Operation, operations_pb2.Operation, op.to_operation, op.from_operation),
    _Kind("alert", Alert, types_pb2.Alert, srv.to_alert, srv.from_alert),
)
_BY_PREFIX = {kind.prefix: kind for kind in _KINDS}
_BY_TYPE = {kind.record: kind for kind in _KINDS}


def encode(record: Ledgered | None) -> bytes | None:
    """None (a deletion) stays None."""
    if record is None:
        return None
    return _BY_TYPE[type(record)].to(record).SerializeToString(deterministic=True)


def decode(key: str, value: bytes) -> Ledgered:
    kind = _BY_PREFIX.get(key.partition("/")[0])
    if kind is None:
        raise Unreadable(f"the store has a record of an unknown kind: {key}")
    message = kind.message()
    try:
        message.ParseFromString(value)
    except DecodeError as error:
        raise Unreadable(f"{key}: {error}") from error
    check = Checker()
    record = kind.read(check, message)
    if check.violations:
        raise Unreadable(f"{key}: {check.violations}")
    return record
