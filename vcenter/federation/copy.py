"""A copy of another domain's ledger, as its watch tells it: soft state, rebuilt when need be."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from common.codec.checker import Checker
from common.codec.operation import from_operation
from common.codec.server import from_server
from common.codec.vm import from_record
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core import indexes, keys
from vcenter.core.table import Change, Table
from vcenter.federation.forwarding import by_its_own_name
from vcenter.ledger.feed import Feed
from vcenter.wire.answers import Answers
from vcenter.wire.caller import Caller
from vcenter.wire.sight import find_id

log = structlog.get_logger()


class Copy:
    """A table of its own, so that two domains' claims never meet in one index.

    `seen` is called with each VM that came or changed. Until the snapshot is whole, questions are
    answered from the copy before.
    """

    def __init__(self, domain: str, seen: Callable[[str, VmRecord], None]) -> None:
        self.domain = domain
        self._seen = seen
        self.position = 0  # a revision of theirs: from where the watch goes on; 0: from a snapshot
        self.is_whole = False  # also of a ledger that has nothing yet, at revision 0
        self._shown = self._coming = Feed(Table(), ring=1)
        self._answers = Answers(self._shown, domain)

    @property
    def table(self) -> Table:
        return self._shown.table

    @property
    def newest(self) -> Table:
        """Also of a snapshot that is not whole yet: what it has, the domain has."""
        return self._coming.table

    def begin_anew(self) -> None:
        self.position = 0
        self.is_whole = False
        self._coming = Feed(Table(), ring=1)

    def take(self, event: directory_pb2.WatchEvent) -> None:
        """Changes of one revision may come in several events, so that only a bookmark says from
        where to go on. What cannot be read is left out, and said."""
        kind = event.WhichOneof("change")
        change = self._change(kind, event)
        if change is not None:  # under a revision of the copy's own: several may share theirs
            self._coming.publish(self._coming.table.revision + 1, [change])
        elif kind == "bookmark":
            self.position = event.revision
            self.is_whole = True
            self._show()

    def _change(self, kind: str | None, event: directory_pb2.WatchEvent) -> Change | None:
        check = Checker()
        change = None
        if kind == "vm":
            record = from_record(check, event.vm)
            change = Change(keys.vm(record.vm.vm_id), record)
        elif kind == "vm_gone":
            change = Change(keys.vm(event.vm_gone), None)
        elif kind == "server":
            server = from_server(check, event.server)
            change = Change(keys.server(server.server_id), server)
        elif kind == "operation":
            operation = from_operation(check, event.operation)
            change = Change(keys.operation(operation.operation_id), operation)
        if check.violations:
            problems = [f"{v.field}: {v.description}" for v in check.violations]
            log.warning("not understood", domain=self.domain, kind=kind, problems=problems)
            return None
        if change is not None and isinstance(change.record, VmRecord):
            self._seen(self.domain, change.record)
        return change

    def _show(self) -> None:
        if self._shown is not self._coming:
            self._shown = self._coming
            self._answers = Answers(self._shown, self.domain)

    def find(self, key: VmKey, caller: Caller) -> pb.LookupResult | None:
        """Without the profile's hash, for the groups that it follows from are not told."""
        vm_id = find_id(self.table, caller, key)
        if vm_id is None:
            return None
        (result,) = pb.LookupResponse.FromString(self._answers.encode([vm_id])).results
        result.profile_hash = ""
        by_its_own_name(result)
        return result

    def count(self) -> tuple[int, int]:
        """VMs and vServers."""
        return self.table.count(indexes.VMS), self.table.count(indexes.SERVERS)
