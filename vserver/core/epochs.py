"""Fencing on the host: whoever gives orders with an older epoch than we have seen is not heard.

Two numbers per VM. *Seen* is the highest epoch that anybody has told us; it only grows, and it is
what orders are measured by (I3). *Held* is the epoch at which this host was the VM's owner, kept
for as long as the VM stays here without a break; a registration carries it. A VM that left and
came back comes as an arrival, and an epoch from its earlier stay would only get it refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KnownEpochs:
    """What is kept across a restart."""

    seen: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)


class Epochs:
    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self.changes = 0  # grows with every change, so that a saver knows when it is behind

    def restore(self, known: KnownEpochs) -> None:
        """What an earlier run has kept; before anything else is heard."""
        self._seen = dict(known.seen)
        self._held = dict(known.held)

    def seen(self, vm_id: str) -> int:
        return self._seen.get(vm_id, 0)

    def held(self, vm_id: str) -> int:
        return self._held.get(vm_id, 0)

    def admits(self, vm_id: str, epoch: int) -> bool:
        """Whether an order with this epoch may be carried out."""
        return epoch >= self.seen(vm_id)

    def note(self, vm_id: str, epoch: int) -> None:
        """Somebody has told us of this epoch."""
        if epoch > self.seen(vm_id):
            self._seen[vm_id] = epoch
            self.changes += 1

    def hold(self, vm_id: str, epoch: int) -> None:
        """This host is the VM's owner at this epoch."""
        self.note(vm_id, epoch)
        if self._held.get(vm_id) != epoch:
            self._held[vm_id] = epoch
            self.changes += 1

    def release(self, vm_ids: Iterable[str]) -> None:
        """These VMs have left, or stopped: what we held of them is over."""
        for vm_id in vm_ids:
            if self._held.pop(vm_id, None) is not None:
                self.changes += 1

    def holding(self) -> frozenset[str]:
        return frozenset(self._held)

    def known(self) -> KnownEpochs:
        """A copy to keep."""
        return KnownEpochs(dict(self._seen), dict(self._held))
