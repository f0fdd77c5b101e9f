"""5.4, Virtualization Server Lookup: which vServer holds a VM (A16), from memory alone."""

from __future__ import annotations

from dataclasses import dataclass

from common.model.server import Server
from common.model.vm import VmKey, VmRecord
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Found:
    record: VmRecord
    server: Server
    profile_hash: str


def lookup(view: View, key: VmKey) -> Found | None:
    """None is an answer, not an error."""
    record = view.by_key(key)
    if record is None:
        return None
    server = view.server(record.location.server_id) or Server(record.location.server_id)
    return Found(record, server, view.profile_of(record.vm).digest())
