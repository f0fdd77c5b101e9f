"""The ledger as it will be: what deciding sees while readers still see the durable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.model.identity import Claim
from common.model.vm import VmRecord
from vcenter.core import keys
from vcenter.core.indexes import OF_VMS, Tag, on_vni, tags
from vcenter.core.keys import VM, Ledgered
from vcenter.core.packed import address_number
from vcenter.core.table import Change, NewVm
from vcenter.core.view import Shape, View


class Overlay(View):
    """The table as it will be once the changes decided so far are durable.

    Lets the writer decide many commands before one fsync, each seeing the ones before it, while
    readers of the table see none of them yet. Small and short-lived: what is asked of it rarely
    (all VMs under a tag) it answers by looking at every change, instead of keeping an index.
    """

    def __init__(self, base: View) -> None:
        self._base = base
        self.limits = base.limits
        self._fresh: dict[str, Change] = {}  # the last of each key
        self._known: dict[str, Ledgered | None] = {}  # what was asked for of what lies below
        self._tags: dict[Tag, set[str]] = {}
        self._claims: dict[tuple[int, int], str] = {}  # by VNI and address number
        self._touched: set[str] = set()  # VMs of which the record or the tombstone has changed
        self._sound: set[Shape] = set()

    def rest_on(self, base: View) -> None:
        """What lies under it is the same, but elsewhere: the overlay below has become durable."""
        self._base = base

    def add(self, changes: Sequence[Change]) -> None:
        for change in changes:
            key = change.key
            before = self._fresh.get(key)
            if before is not None:
                self._unfile(before)
            self._fresh[key] = change
            kind, _, name = key.partition("/")
            if kind == "vm":
                self._touched.add(name)
                for claim in _claims(change):
                    self._claims[claim] = name
                continue
            if kind == "gone":
                self._touched.add(name)
            for tag in _tags(change):
                self._tags.setdefault(tag, set()).add(key)
            self._sound.clear()

    def sound(self) -> set[Shape]:
        return self._sound

    def get(self, key: str) -> Ledgered | None:
        """What lies below stays the same, so it is asked once for what many commands need."""
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh.record
        if key in self._known:
            return self._known[key]
        record = self._known[key] = self._base.get(key)
        return record

    def holder(self, claim: Claim) -> str | None:
        fresh = self._claims.get((claim.vni, address_number(claim.address)))
        if fresh is not None:
            return fresh
        held = self._base.holder(claim)
        return None if held is None or keys.vm(held) in self._fresh else held

    def knows(self, vm_id: str, claims: Iterable[tuple[int, int]]) -> bool:
        if vm_id in self._touched:
            return True
        return not self._claims.keys().isdisjoint(claims) or self._base.knows(vm_id, claims)

    def find(self, tag: Tag) -> Iterable[str]:
        below, fresh = self._base.find(tag), self._tags.get(tag, ())
        if tag[0] not in OF_VMS and not fresh and not below:
            return ()
        found = {key for key in below if key not in self._fresh}
        found.update(fresh)
        if tag[0] in OF_VMS:
            found.update(key for key, change in self._fresh.items() if _is_under(change, tag))
        return found

    def owners_on(self, vni: int) -> Iterable[str]:
        here = self.all(VmRecord, on_vni(vni))
        return {record.location.server_id for record in here}

    def _unfile(self, change: Change) -> None:
        for claim in _claims(change):
            self._claims.pop(claim, None)
        for tag in _tags(change):
            self._tags[tag].discard(change.key)


def _claims(change: Change) -> Sequence[tuple[int, int]]:
    """What the VM claims, if it is one, and is there."""
    if isinstance(change, NewVm):
        return change.claims
    record = change.record
    if not isinstance(record, VmRecord):
        return ()
    return [(claim.vni, address_number(claim.address)) for claim in record.vm.claims()]


def _tags(change: Change) -> Iterable[Tag]:
    """Of a record that is there; VMs are not filed."""
    record = change.record
    return () if record is None or change.key.startswith(VM) else tags(record)


def _is_under(change: Change, tag: Tag) -> bool:
    """Whether it is a VM that is there and has the tag."""
    if not change.key.startswith(VM):
        return False
    record = change.record
    return record is not None and tag in tags(record)
