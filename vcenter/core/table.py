"""The ledger in memory: every record by key, by tag and by claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from common.model.identity import Claim
from common.model.vm import VmRecord
from vcenter.core.indexes import Tag, claims, tags
from vcenter.core.keys import Ledgered
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Change:
    """One key's new record; None deletes it."""

    key: str
    record: Ledgered | None


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that has happened: before and after."""

    key: str
    before: Ledgered | None
    after: Ledgered | None


class Table(View):
    """Durable state only: whoever reads here sees nothing that could still be lost."""

    def __init__(self) -> None:
        self.revision = 0
        self._records: dict[str, Ledgered] = {}
        self._tags: dict[Tag, set[str]] = {}
        self._claims: dict[Claim, str] = {}

    def get(self, key: str) -> Ledgered | None:
        return self._records.get(key)

    def holder(self, claim: Claim) -> str | None:
        return self._claims.get(claim)

    def find(self, tag: Tag) -> Iterable[str]:
        return self._tags.get(tag, ())

    def count(self, tag: Tag) -> int:
        return len(self._tags.get(tag, ()))

    def apply(self, revision: int, changes: Sequence[Change]) -> list[Applied]:
        """Makes changes visible, stamped with the revision at which they became durable."""
        self.revision = revision
        return [self._apply_one(revision, change) for change in changes]

    def _apply_one(self, revision: int, change: Change) -> Applied:
        before = self._records.pop(change.key, None)
        if before is not None:
            self._unfile(change.key, before)
        after = change.record
        if after is not None:
            after = replace(after, revision=revision)
            self._records[change.key] = after
            self._file(change.key, after)
        return Applied(change.key, before, after)

    def _file(self, key: str, record: Ledgered) -> None:
        for tag in tags(record):
            self._tags.setdefault(tag, set()).add(key)
        if isinstance(record, VmRecord):
            for claim in claims(record):
                self._claims[claim] = record.vm.vm_id

    def _unfile(self, key: str, record: Ledgered) -> None:
        for tag in tags(record):
            filed = self._tags[tag]
            filed.discard(key)
            if not filed:
                del self._tags[tag]
        for claim in claims(record):
            self._claims.pop(claim, None)
