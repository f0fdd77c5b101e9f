"""The ledger as it will be: what deciding sees while readers still see the durable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.model.identity import Claim
from common.model.vm import VmRecord
from vcenter.core import keys
from vcenter.core.indexes import OF_VMS, Tag, on_vni, tags
from vcenter.core.keys import Ledgered
from vcenter.core.table import Change
from vcenter.core.view import View


class Overlay(View):
    """The table as it will be once the changes decided so far are durable.

    Lets the writer decide many commands before one fsync, each seeing the ones before it, while
    readers of the table see none of them yet. Small and short-lived: what is asked of it rarely
    (all VMs under a tag) it answers by looking at every change, instead of keeping an index.
    """

    def __init__(self, base: View) -> None:
        self._base = base
        self.limits = base.limits
        self._fresh: dict[str, Ledgered | None] = {}  # None: deleted
        self._known: dict[str, Ledgered | None] = {}  # all that was asked for
        self._vms: set[str] = set()
        self._tags: dict[Tag, set[str]] = {}
        self._claims: dict[Claim, str] = {}

    def rest_on(self, base: View) -> None:
        """What lies under it is the same, but elsewhere: the overlay below has become durable."""
        self._base = base

    def add(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before = self._fresh.get(change.key)
            if before is not None:
                self._unfile(change.key, before)
            self._fresh[change.key] = self._known[change.key] = change.record
            if change.record is not None:
                self._file(change.key, change.record)

    def get(self, key: str) -> Ledgered | None:
        """What lies below stays the same, so it is asked once for what many commands need."""
        if key in self._known:
            return self._known[key]
        record = self._known[key] = self._base.get(key)
        return record

    def holder(self, claim: Claim) -> str | None:
        fresh = self._claims.get(claim)
        if fresh is not None:
            return fresh
        held = self._base.holder(claim)
        return None if held is None or keys.vm(held) in self._fresh else held

    def find(self, tag: Tag) -> Iterable[str]:
        below, fresh = self._base.find(tag), self._tags.get(tag, ())
        if tag[0] not in OF_VMS and not fresh and not below:
            return ()
        found = {key for key in below if key not in self._fresh}
        found.update(fresh)
        if tag[0] in OF_VMS:
            found.update(key for key in self._vms if tag in tags(self._record(key)))
        return found

    def owners_on(self, vni: int) -> Iterable[str]:
        here = self.all(VmRecord, on_vni(vni))
        return {record.location.server_id for record in here}

    def _record(self, key: str) -> Ledgered:
        record = self._fresh[key]
        assert record is not None, "what is filed is there"
        return record

    def _file(self, key: str, record: Ledgered) -> None:
        if isinstance(record, VmRecord):
            self._vms.add(key)
            self._claims.update((claim, record.vm.vm_id) for claim in record.vm.claims())
            return
        for tag in tags(record):
            self._tags.setdefault(tag, set()).add(key)

    def _unfile(self, key: str, record: Ledgered) -> None:
        if isinstance(record, VmRecord):
            self._vms.discard(key)
            for claim in record.vm.claims():
                self._claims.pop(claim, None)
            return
        for tag in tags(record):
            self._tags[tag].discard(key)
