"""Which of the domains that are followed may have a VM or an address: one look, not one for each.

By vm_id, and by VNI, of which there are far fewer than addresses. Whoever is not named has nothing
of it; who is named is asked itself.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Index(Generic[T]):
    def __init__(self) -> None:
        self._by_vm: dict[str, tuple[T, ...]] = {}
        self._by_vni: dict[int, tuple[T, ...]] = {}

    def share(self, who: T) -> Share[T]:
        """What that one has, for it to keep."""
        return Share(who, self._by_vm, self._by_vni)

    def who(self, vm_id: str, vnis: Iterable[int]) -> Collection[T]:
        """Who may have the VM, or claims in one of the VNIs."""
        found = self._by_vm.get(vm_id, ())
        for vni in vnis:
            there = self._by_vni.get(vni, ())
            if there and there is not found:
                found = tuple(dict.fromkeys((*found, *there)))
        return found


class Share(Generic[T]):
    """One domain's part of the index. Nearly every entry is of one domain alone, and then shares
    that domain's tuple, so that an entry costs a slot of a dictionary."""

    def __init__(
        self, who: T, by_vm: dict[str, tuple[T, ...]], by_vni: dict[int, tuple[T, ...]]
    ) -> None:
        self._who = who
        self._alone = (who,)
        self._by_vm, self._by_vni = by_vm, by_vni

    def enter(self, vm_id: str, vnis: Iterable[int]) -> None:
        """`vm_id`: the text that the rows have as their key, which is then kept once."""
        before = self._by_vm.pop(vm_id, ())
        self._by_vm[vm_id] = self._with(before)
        for vni in vnis:
            self._by_vni[vni] = self._with(self._by_vni.get(vni, ()))

    def leave(self, vm_ids: Iterable[str], vnis: Iterable[int]) -> None:
        for vm_id in vm_ids:
            self._strike(self._by_vm, vm_id)
        for vni in vnis:
            self._strike(self._by_vni, vni)

    def _with(self, before: tuple[T, ...]) -> tuple[T, ...]:
        if not before:
            return self._alone
        return before if self._who in before else (*before, self._who)

    def _strike(self, index: dict[K, tuple[T, ...]], key: K) -> None:
        left = tuple(who for who in index.pop(key, ()) if who is not self._who)
        if left:
            index[key] = left
