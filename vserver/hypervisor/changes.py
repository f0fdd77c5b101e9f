"""VMs that may have changed, waiting to be looked at: bounded, and without duplicates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_LIMIT = 1024
EVERYTHING = ""


class Changes(AsyncIterator[str]):
    """A queue for one consumer. Overflow merges into "", for a full list covers every event.

    Waiting, an id stands in it once: what the consumer will read is newer than all its events.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._pending: dict[str, None] = {}
        self._arrived = asyncio.Event()
        self._closed = False

    def add(self, vm_id: str) -> None:
        """Note a change; from the event loop's thread only."""
        if EVERYTHING not in self._pending:
            if vm_id == EVERYTHING or len(self._pending) >= self._limit:
                self._pending = {EVERYTHING: None}
            else:
                self._pending[vm_id] = None
        self._arrived.set()

    def close(self) -> None:
        """End the consumer's loop."""
        self._closed = True
        self._arrived.set()

    async def __anext__(self) -> str:
        await self._arrived.wait()
        if self._closed:
            raise StopAsyncIteration
        vm_id = next(iter(self._pending))
        del self._pending[vm_id]
        if not self._pending:
            self._arrived.clear()
        return vm_id
