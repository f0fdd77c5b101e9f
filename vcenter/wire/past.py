"""What was, on the wire: where a VM was at a time, and what became of it since."""

from __future__ import annotations

from datetime import UTC, datetime

from common.codec.checker import Checker
from common.codec.times import from_timestamp, to_timestamp
from common.codec.vm import from_key, to_record
from common.errors import Reason, Refusal
from common.model.identity import parse_vm_id
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.past import Past
from vcenter.store.port import Compacted

MAX_ENTRIES = 1000


async def where_was(past: Past, request: pb.WhereWasRequest, now_ms: int) -> pb.WhereWasResponse:
    check = Checker()
    with check.at("key"):
        key = from_key(check, request.key)
    check.require(request.HasField("at"), "at", "is required")
    check.done()
    at_ms = min(from_timestamp(request.at), now_ms)
    try:
        revision, record = await past.where_was(key, at_ms)
    except Compacted:
        since = await past.since_ms()
        text = f"history is kept from {_moment(since)} on, not at {_moment(at_ms)}"
        evidence = {"kept_since_ms": str(since)}
        raise Refusal(Reason.HISTORY_NOT_KEPT, text, evidence=evidence) from None
    return pb.WhereWasResponse(
        found=record is not None,
        record=to_record(record) if record is not None else None,
        revision=revision,
        at=to_timestamp(at_ms),
    )


async def vm_history(
    past: Past, request: pb.VmHistoryRequest, revision: int
) -> pb.VmHistoryResponse:
    check = Checker()
    vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
    check.at_most("limit", request.limit, MAX_ENTRIES)
    check.done()
    versions = await past.versions(vm_id, request.limit or 100)
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
        revision=revision,
    )


def _moment(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{ms} ms"
