"""The ledger as it will be: what deciding sees while readers still see the durable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.model.identity import Claim
from vcenter.core import keys
from vcenter.core.indexes import Tag
from vcenter.core.keys import Ledgered
from vcenter.core.table import Change, Table
from vcenter.core.view import View


class Overlay(View):
    """The table as it will be once the changes decided so far are durable.

    Lets the writer decide many commands before one fsync, each seeing the ones before it, while
    readers of the table see none of them yet.
    """

    def __init__(self, base: View) -> None:
        self._base = base
        self._fresh = Table()
        self._hidden: set[str] = set()

    def add(self, changes: Sequence[Change]) -> None:
        self._hidden.update(change.key for change in changes)
        self._fresh.apply(0, changes)

    def get(self, key: str) -> Ledgered | None:
        return self._fresh.get(key) if key in self._hidden else self._base.get(key)

    def holder(self, claim: Claim) -> str | None:
        fresh = self._fresh.holder(claim)
        if fresh is not None:
            return fresh
        held = self._base.holder(claim)
        return None if held is None or keys.vm(held) in self._hidden else held

    def find(self, tag: Tag) -> Iterable[str]:
        kept = {key for key in self._base.find(tag) if key not in self._hidden}
        return kept.union(self._fresh.find(tag))
