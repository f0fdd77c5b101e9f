"""The ledger in memory: VMs compactly, every other record by key and by tag."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from common.model.identity import Claim
from common.model.value import value
from common.model.vm import Location, VmRecord
from vcenter.core import indexes, keys
from vcenter.core.indexes import Tag, tags
from vcenter.core.keys import VM, Ledgered
from vcenter.core.packed import Kind, Packed, put_together
from vcenter.core.view import FreezeLimits, View
from vcenter.core.vms import Vms


@value
class Change:
    """One key's new record; None deletes it."""

    key: str
    record: Ledgered | None


class NewVm(Change):
    """A VM that was not there, as its row will have it; the record is made for whoever asks."""

    __slots__ = ("changed_ms", "claims", "key", "location", "vm")
    key: str

    def __init__(
        self,
        vm: Packed,
        claims: Sequence[tuple[int, int]],
        location: Location,
        changed_ms: int,
    ) -> None:
        self.key = keys.vm(vm.vm_id)
        self.vm = vm
        self.claims = claims  # `packed.claim_numbers` of the VM
        self.location = location
        self.changed_ms = changed_ms

    @property
    def record(self) -> VmRecord:
        return VmRecord(self.vm.vm(), self.location, self.changed_ms)


@value
class Applied:
    """A change that has happened: before and after."""

    key: str
    before: Ledgered | None
    after: Ledgered | None

    @property
    def kind(self) -> type:
        """Of the record."""
        return type(self.before if self.after is None else self.after)


class Entered(Applied):
    """That a VM was entered. How it was then is read from its row, once somebody asks."""

    __slots__ = ("_after", "_kind", "_row", "_server_id", "key")
    key: str
    before = None
    kind = VmRecord

    def __init__(self, key: str, kind: Kind, row: bytes, server_id: str) -> None:
        self.key = key
        self._kind = kind
        self._row = row
        self._server_id = server_id
        self._after: VmRecord | None = None

    @property
    def after(self) -> VmRecord:
        if self._after is None:
            vm_id = self.key[len(VM) :]
            self._after = put_together(vm_id, self._kind, self._row, self._server_id, "")
        return self._after


class Table(View):
    """Durable state only: whoever reads here sees nothing that could still be lost."""

    def __init__(self, limits: FreezeLimits | None = None) -> None:
        self.limits = limits or FreezeLimits()
        self.revision = 0
        self.vms = Vms()
        self._records: dict[str, Ledgered] = {}
        self._tags: dict[Tag, set[str]] = {}
        vms = self.vms
        self._vm_tags: dict[str | int, Callable[..., Iterable[str]]] = {
            indexes.VMS[0]: vms.rows.keys,
            indexes.OWNER: vms.owned_by,
            indexes.VNI: vms.on_vni,
            indexes.TENANT: vms.of_tenant,
            indexes.GROUP: vms.in_group,
        }

    def get(self, key: str) -> Ledgered | None:
        if key.startswith(VM):
            return self.vms.get(key[len(VM) :])
        return self._records.get(key)

    def revision_of(self, key: str) -> int:
        """Of the last change to the key; 0: there is no such record."""
        if key.startswith(VM):
            return self.vms.revision_of(key[len(VM) :])
        record = self._records.get(key)
        return record.revision if record is not None else 0

    def holder(self, claim: Claim) -> str | None:
        return self.vms.holder(claim)

    def knows(self, vm_id: str, claims: Iterable[tuple[int, int]]) -> bool:
        return self.vms.touches(vm_id, claims) or keys.gone(vm_id) in self._records

    def find(self, tag: Tag) -> Iterable[str]:
        found: Iterable[str] = self._tags.get(tag, ())
        of_vms = self._vm_tags.get(tag[0])
        return found if of_vms is None else [*found, *map(keys.vm, of_vms(*tag[1:]))]

    def count(self, tag: Tag) -> int:
        found = len(self._tags.get(tag, ()))
        of_vms = self._vm_tags.get(tag[0])
        if of_vms is None:
            return found
        vms = of_vms(*tag[1:])
        return found + (len(vms) if isinstance(vms, Collection) else sum(1 for _ in vms))

    def owners_on(self, vni: int) -> Iterable[str]:
        return self.vms.owners_on(vni)

    def apply(self, revision: int, changes: Sequence[Change]) -> list[Applied]:
        """Makes changes visible, stamped with the revision at which they became durable."""
        self.revision = revision
        return [self._apply_one(revision, change) for change in changes]

    def _apply_one(self, revision: int, change: Change) -> Applied:
        if isinstance(change, NewVm):
            return self._enter(revision, change)
        key, record = change.key, change.record
        if key.startswith(VM):
            before: Ledgered | None = self.vms.get(key[len(VM) :])
            if before is not None:
                self.vms.remove(key[len(VM) :])
            if isinstance(record, VmRecord):
                self.vms.put(record, revision)
                record = record.at(revision)
            return Applied(key, before, record)
        before = self._records.pop(key, None)
        if before is not None:
            self._unfile(key, before)
        if record is not None:
            record = replace(record, revision=revision)
            self._records[key] = record
            for tag in tags(record):
                self._tags.setdefault(tag, set()).add(key)
        return Applied(key, before, record)

    def _enter(self, revision: int, new: NewVm) -> Entered:
        vm, at = new.vm, new.location
        row = self.vms.insert(
            vm.vm_id,
            self.vms.number_of(vm.kind),
            vm.addresses,
            vm.name,
            new.claims,
            at.server_id,
            at.state,
            at.epoch,
            new.changed_ms,
            revision,
        )
        return Entered(new.key, vm.kind, row, at.server_id)

    def _unfile(self, key: str, record: Ledgered) -> None:
        for tag in tags(record):
            filed = self._tags[tag]
            filed.discard(key)
            if not filed:
                del self._tags[tag]
