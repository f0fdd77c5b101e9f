"""What was, on the wire: where a VM was at a time, and what became of it since."""

from __future__ import annotations

from datetime import UTC, datetime

from common.codec.checker import Checker
from common.codec.times import from_timestamp, to_timestamp
from common.codec.vm import from_key, to_record
from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.identity import parse_vm_id
from common.model.vm import VmKey
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.ledger.ledger import Ledger
from vcenter.store.port import Compacted
from vcenter.wire.sight import had_vm, sees_vm

MAX_ENTRIES = 1000
MAX_SECONDS = 253_402_300_799  # the last of google.protobuf.Timestamp's


async def where_was(
    ledger: Ledger, request: pb.WhereWasRequest, caller: Caller, now_ms: int
) -> pb.WhereWasResponse:
    past = ledger.past
    check = Checker()
    with check.at("key"):
        key = from_key(check, request.key)
    check.require(request.HasField("at"), "at", "is required")
    check.require(abs(request.at.seconds) <= MAX_SECONDS, "at", "from the year 1 to 9999")
    check.done()
    at_ms = min(from_timestamp(request.at), now_ms)
    if not had_vm(ledger.table, caller, key):
        return pb.WhereWasResponse(revision=ledger.table.revision, at=to_timestamp(at_ms))
    try:
        revision, record = await past.where_was(key, at_ms)
    except Compacted:
        since = await past.since_ms()
        text = f"history is kept from {_moment(since)} on, not at {_moment(at_ms)}"
        evidence = {"kept_since_ms": str(since)}
        raise Refusal(Reason.HISTORY_NOT_KEPT, text, evidence=evidence) from None
    if record is not None and not sees_vm(caller, record.vm):
        record = None
    return pb.WhereWasResponse(
        found=record is not None,
        record=to_record(record) if record is not None else None,
        revision=revision,
        at=to_timestamp(at_ms),
    )


async def vm_history(
    ledger: Ledger, request: pb.VmHistoryRequest, caller: Caller
) -> pb.VmHistoryResponse:
    past = ledger.past
    check = Checker()
    vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
    check.at_most("limit", request.limit, MAX_ENTRIES)
    check.done()
    versions = []
    if had_vm(ledger.table, caller, VmKey(vm_id)):
        found = await past.versions(vm_id, request.limit or 100)
        versions = [(v, r) for v, r in found if r is None or sees_vm(caller, r.vm)]
    if not versions:
        raise Refusal(Reason.UNKNOWN_VM, f"no VM {vm_id} is or was registered, as far as is kept")
    since = await past.since_ms()
    return pb.VmHistoryResponse(
        entries=[
            pb.VmHistoryEntry(
                revision=version.revision,
                at=to_timestamp(version.at_ms or (record.changed_ms if record else 0)),
                record=to_record(record) if record is not None else None,
            )
            for version, record in versions
        ],
        kept_since=to_timestamp(since) if since else None,
        revision=ledger.table.revision,
    )


def _moment(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{ms} ms"
