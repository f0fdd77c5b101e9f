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
from common.codec import telling, trust, twin, vm
from common.codec.checker import Checker
from common.codec.record_bytes import record_bytes, record_of
from common.codec.times import from_timestamp, to_timestamp
from common.model.dispute import Dispute, Turn
from common.model.operation import Operation
from common.model.server import Alert, Group, Server, Tenant, VirtualNetwork
from common.model.telling import Telling
from common.model.trust import Certificate, Invitation
from common.model.twin import Twin
from common.model.vm import Tombstone, VmRecord
from common.pb.vsignal.v1 import enrolment_pb2, operations_pb2, storage_pb2, types_pb2
from vcenter.core.keys import Ledgered
from vcenter.core.table import Change, NewVm
from vcenter.store.port import Entry


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


def _to_dispute(dispute: Dispute) -> storage_pb2.Dispute:
    turns = [
        storage_pb2.Dispute.Turn(at=to_timestamp(t.at_ms), before=t.before, after=t.after)
        for t in dispute.turns
    ]
    return storage_pb2.Dispute(
        identity=dispute.identity,
        holder=dispute.holder,
        touched_at=to_timestamp(dispute.touched_ms),
        turns=turns,
        frozen_at=to_timestamp(dispute.frozen_ms) if dispute.frozen_ms else None,
    )


def _from_dispute(check: Checker, wire: storage_pb2.Dispute) -> Dispute:
    turns = tuple(Turn(from_timestamp(t.at), t.before, t.after) for t in wire.turns)
    frozen_ms = from_timestamp(wire.frozen_at) if wire.HasField("frozen_at") else 0
    touched_ms = from_timestamp(wire.touched_at)
    return Dispute(wire.identity, wire.holder, touched_ms, turns, frozen_ms)


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
    _Kind("op", Operation, operations_pb2.Operation, op.to_stored, op.from_operation),
    _Kind("alert", Alert, types_pb2.Alert, srv.to_alert, srv.from_alert),
    _Kind(
        "cert",
        Certificate,
        enrolment_pb2.Certificate,
        trust.to_certificate,
        trust.from_certificate,
    ),
    _Kind("invite", Invitation, storage_pb2.Invitation, trust.to_invitation, trust.from_invitation),
    _Kind("dispute", Dispute, storage_pb2.Dispute, _to_dispute, _from_dispute),
    _Kind("telling", Telling, storage_pb2.Told, telling.to_told, telling.from_told),
    _Kind("twin", Twin, types_pb2.Twin, twin.to_twin, twin.from_twin),
)
_BY_PREFIX = {kind.prefix: kind for kind in _KINDS}
_BY_TYPE = {kind.record: kind for kind in _KINDS}


def encoded(change: Change) -> bytes | None:
    """What the store keeps of a change; None: the key is deleted."""
    if isinstance(change, NewVm):
        return record_of(change.vm.encoded, change.location, change.changed_ms)
    return encode(change.record)


def encode(record: Ledgered | None) -> bytes | None:
    """None (a deletion) stays None."""
    if record is None:
        return None
    if isinstance(record, VmRecord):
        return record_bytes(record)
    return _BY_TYPE[type(record)].to(record).SerializeToString(deterministic=True)


def changes_of(entry: Entry) -> list[Change]:
    """A stored batch, as it changes the table. Raises `Unreadable`."""
    return [Change(p.key, None if p.value is None else decode(p.key, p.value)) for p in entry.puts]


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
