"""Which of two readings is newer, when a long one and a short one overlap.

A full listing takes its time; what an event has taught us about one VM meanwhile is newer than what
the listing says of it. So every reading takes a ticket when it begins, and for each key the result
with the highest ticket stands.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Freshness(Generic[K]):
    def __init__(self) -> None:
        self._ticket = 0
        self._taken: dict[K, int] = {}

    def begin(self) -> int:
        """A ticket for a reading that begins now."""
        self._ticket += 1
        return self._ticket

    def takes(self, key: K, ticket: int) -> bool:
        """Whether this reading is the newest for the key; if so, it stands."""
        if ticket < self._taken.get(key, 0):
            return False
        self._taken[key] = ticket
        return True

    def merge(self, into: MutableMapping[K, V], found: Mapping[K, V], ticket: int) -> None:
        """A full reading: keys that it does not have are gone."""
        for key, value in found.items():
            if self.takes(key, ticket):
                into[key] = value
        for key in into.keys() - found.keys():
            if self.takes(key, ticket):
                del into[key]
        self._taken = {k: t for k, t in self._taken.items() if k in into or t > ticket}
