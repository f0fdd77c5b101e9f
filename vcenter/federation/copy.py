"""A copy of another domain's ledger, as its watch tells it: soft state, rebuilt when need be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from common.codec.checker import Checker
from common.codec.operation import from_operation
from common.codec.server import from_server
from common.codec.vm import from_record
from common.model.place import domain_of
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core import indexes, keys
from vcenter.core.duplicate import Held
from vcenter.core.table import Change, Table
from vcenter.federation.forwarding import by_its_own_name
from vcenter.federation.index import Share
from vcenter.ledger.feed import Committed, Feed
from vcenter.wire.answers import Answers
from vcenter.wire.caller import Caller
from vcenter.wire.sight import find_id

log = structlog.get_logger()


class Copy:
    """A table of its own, so that two domains' claims never meet in one index.

    `seen` is called with each VM that came or changed. Until the snapshot is whole, questions are
    answered from the copy before; `held` has it already: what it has, the domain has. `share`
    names what either has.
    """

    def __init__(
        self, domain: str, seen: Callable[[str, VmRecord], None], share: Share[Any]
    ) -> None:
        self.domain = domain
        self._seen = seen
        self._share = share
        self.position = 0  # a revision of theirs: from where the watch goes on; 0: from a snapshot
        self.is_whole = False  # also of a ledger that has nothing yet, at revision 0
        self._shown = self._coming = self._new()
        self.held = Held(domain, self._coming.table)
        self._answers = self._answers_of(self._shown)

    def _new(self) -> Feed:
        feed = Feed(Table(), ring=1)
        feed.listen(self._committed, VmRecord)
        return feed

    def _answers_of(self, feed: Feed) -> Answers:
        """Without the policy's hash, for the groups that it follows from are not told."""
        return Answers(feed, self.domain, pb.CERTAINTY_UNSPECIFIED, lambda table, kind: "")

    @property
    def table(self) -> Table:
        return self._shown.table

    def begin_anew(self) -> None:
        self.position = 0
        self.is_whole = False
        given_up, self._coming = self._coming, self._new()
        self.held = Held(self.domain, self._coming.table)
        if given_up is not self._shown:
            self._leave(given_up.table.vms.rows, given_up.table.vms.vnis())

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

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            before, after = change.before, change.after
            vnis: Collection[int] = ()
            if isinstance(after, VmRecord):
                vnis = after.vm.vnis()
                self._share.enter(after.vm.vm_id, vnis)
            if isinstance(before, VmRecord) and (after is None or before.vm.vnis() != vnis):
                self._leave((before.vm.vm_id,), before.vm.vnis())

    def _leave(self, vm_ids: Iterable[str], vnis: Iterable[int]) -> None:
        """Those of them that are in neither table any more."""
        shown, coming = self._shown.table.vms, self._coming.table.vms
        left = [v for v in vm_ids if v not in shown.rows and v not in coming.rows]
        empty = [v for v in vnis if v not in shown.vnis() and v not in coming.vnis()]
        self._share.leave(left, empty)

    def _show(self) -> None:
        if self._shown is not self._coming:
            before, self._shown = self._shown, self._coming
            self._answers = self._answers_of(self._shown)
            self._leave(before.table.vms.rows, before.table.vms.vnis())

    def find(self, key: VmKey, caller: Caller) -> str | None:
        """The vm_id; None: it has none that the caller sees."""
        return find_id(self.table, caller, key)

    def place_of(self, vm_id: str) -> tuple[str, int]:
        """The domain whose word it is where the VM is, and the epoch."""
        server_id, epoch = self.table.vms.place_of(vm_id)
        return domain_of(server_id) or self.domain, epoch

    def answer(self, vm_id: str, moment: bytes) -> bytes:
        """As `Answers.one`, of a VM of its own. `moment`: how certain it is, and since when."""
        return self._answers.one(vm_id, moment)

    def hearsay(self, vm_id: str, moment: bytes) -> bytes:
        """The same of another domain's VM."""
        response = pb.LookupResponse.FromString(self._answers.one(vm_id, moment))
        by_its_own_name(response.results[0])
        return response.SerializeToString()

    def count(self) -> tuple[int, int]:
        """VMs and vServers."""
        return self.table.count(indexes.VMS), self.table.count(indexes.SERVERS)
