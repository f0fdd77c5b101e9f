"""Pages of the audit log, the newest entries first."""

from __future__ import annotations

import asyncio

from common.codec.times import to_timestamp
from common.errors import Violation, invalid
from common.pb.vsignal.v1 import directory_pb2 as pb
from vcenter.journal import Entry, Journal
from vcenter.wire.paging import DEFAULT, MAX

MAX_TOKEN = 18


async def listed(journal: Journal, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
    token = request.page_token
    if token and not (token.isascii() and token.isdecimal() and len(token) <= MAX_TOKEN):
        raise invalid([Violation("page_token", "not a token that this service gave")])

    def wanted(entry: Entry) -> bool:
        return (
            request.who in ("", entry.who)
            and request.subject in ("", entry.subject)
            and not (request.refused_only and entry.outcome == "done")
        )

    size = min(request.page_size or DEFAULT, MAX)
    entries, before = await asyncio.to_thread(journal.read, int(token or 0), wanted, size)
    return pb.ListAuditResponse(
        entries=[_to_wire(entry) for entry in entries],
        next_page_token=str(before) if before else "",
    )


def _to_wire(entry: Entry) -> pb.AuditEntry:
    return pb.AuditEntry(
        number=entry.number,
        at=to_timestamp(entry.at_ms),
        who=entry.who,
        peer=entry.peer,
        what=entry.what,
        subject=entry.subject,
        revision=entry.revision,
        outcome=entry.outcome,
        count=entry.count,
    )
