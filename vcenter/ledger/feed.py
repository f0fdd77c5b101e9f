"""What became durable, in revision order: to the table first, then to everyone who listens.

Queues are bounded. A subscriber that falls behind is cut off and told so; it never holds the
ledger back and never misses a change without knowing (I4).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias

from common.model.value import value
from vcenter.core.table import Applied, Change, Table

RING = 10_000  # changes that are remembered, of which a batch may have many
QUEUE = 1_000  # changes that wait for one reader


@value
class Committed:
    """One durable batch, as it changed the table."""

    revision: int
    changes: tuple[Applied, ...]


Listener: TypeAlias = Callable[[Committed], None]


class Lagging(Exception):
    """The subscriber was too slow: resynchronize from a snapshot."""


class Subscription:
    """One reader's queue. Reading ends with `Lagging` when it overflowed; what was committed
    together always fits into an empty one."""

    def __init__(self, limit: int) -> None:
        self._queue: deque[Committed] = deque()
        self._size = 0
        self._limit = limit
        self._lagging = False
        self._ended = False
        self._wake = asyncio.Event()

    def put(self, committed: Committed) -> None:
        self._size += len(committed.changes)
        if self._queue and self._size > self._limit:
            self._lagging = True
            self._queue.clear()
        if not self._lagging:
            self._queue.append(committed)
        self._wake.set()

    def end(self) -> None:
        """The ledger is closing: what is queued is still read, then the iteration ends."""
        self._ended = True
        self._wake.set()

    async def next(self, within: float | None = None) -> Committed | None:
        """None: nothing came in so many seconds, or nothing will come any more (`ended`)."""
        while not self._queue:
            if self._lagging:
                raise Lagging
            if self._ended:
                return None
            self._wake.clear()
            try:
                async with asyncio.timeout(within):
                    await self._wake.wait()
            except TimeoutError:
                return None
        committed = self._queue.popleft()
        self._size -= len(committed.changes)
        return committed

    @property
    def ended(self) -> bool:
        return self._ended and not self._queue

    async def __aiter__(self) -> AsyncIterator[Committed]:
        while (committed := await self.next()) is not None:
            yield committed


class Feed:
    """Owns the order in which changes become visible."""

    def __init__(self, table: Table, ring: int = RING) -> None:
        self.table = table
        self._ring: deque[Committed] = deque()
        self._ring_size, self._ring_limit = 0, ring
        self._subscriptions: dict[Subscription, None] = {}  # in the order of their beginning
        self._listeners: list[tuple[Listener, tuple[type, ...]]] = []
        self._concerned: dict[frozenset[type], list[Listener]] = {}
        self.ended = False

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        """Call only with what is durable, in revision order. What is visible already stays so."""
        if revision <= self.table.revision:
            return
        committed = Committed(revision, tuple(self.table.apply(revision, changes)))
        self._remember(committed)
        for listener in self._who_hears(frozenset([change.kind for change in committed.changes])):
            listener(committed)
        for subscription in self._subscriptions:
            subscription.put(committed)

    def listen(self, listener: Listener, *kinds: type) -> None:
        """For parts of this process that must not miss anything: called at once, must not wait.
        `kinds`: records of which one at least must have changed; none: any."""
        self._listeners.append((listener, kinds))
        self._concerned.clear()

    def _who_hears(self, changed: frozenset[type]) -> list[Listener]:
        """Remembered: there are few mixtures, and many changes of each."""
        who = self._concerned.get(changed)
        if who is None:
            who = [
                one for one, kinds in self._listeners if not kinds or not changed.isdisjoint(kinds)
            ]
            self._concerned[changed] = who
        return who

    def _remember(self, committed: Committed) -> None:
        self._ring.append(committed)
        self._ring_size += len(committed.changes)
        while self._ring_size > self._ring_limit and len(self._ring) > 1:
            self._ring_size -= len(self._ring.popleft().changes)

    @contextmanager
    def subscribe(self, limit: int = QUEUE) -> Iterator[Subscription]:
        """Watch first, catch up second: what comes after this line is in the queue."""
        subscription = Subscription(limit)
        if self.ended:
            subscription.end()
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            self._subscriptions.pop(subscription, None)

    async def reached(self, revision: int, within: float) -> bool:
        """Whether the table is at a revision, so many seconds from now at the latest."""
        with self.subscribe() as subscription, suppress(TimeoutError, Lagging):
            async with asyncio.timeout(within):
                while self.table.revision < revision and not self.ended:
                    await subscription.next()
        return self.table.revision >= revision

    def end(self) -> None:
        """Every subscription ends, so that no stream holds a shutdown up."""
        self.ended = True
        for subscription in self._subscriptions:
            subscription.end()

    def since(self, revision: int) -> list[Committed] | None:
        """What was committed after `revision`; None if that is not remembered any more."""
        if revision >= self.table.revision:
            return [] if revision == self.table.revision else None
        oldest = self._ring[0].revision if self._ring else self.table.revision + 1
        if revision + 1 < oldest:
            return None
        return [c for c in self._ring if c.revision > revision]
