"""A real store that can be held up or made to fail, and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vcenter.store.memory import MemoryStore
from vcenter.store.port import Batch, Conflict, WriteFailed


class HeldStore(MemoryStore):
    """Holds each append until it is released, or fails it."""

    def __init__(self, held: bool = True) -> None:
        super().__init__()
        self.released = asyncio.Event()
        if not held:
            self.released.set()
        self.waiting = asyncio.Event()
        self.failing = False
        self.groups: list[int] = []

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        self.groups.append(len(batches))
        self.waiting.set()
        await self.released.wait()
        if self.failing:
            raise WriteFailed("disk full")
        return await super().append(batches, at_ms)


class HandClock:
    """Time stands still until `turn`."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._turned = asyncio.Event()

    def now_ms(self) -> int:
        return int(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        until = self._now + seconds
        while self._now < until:
            await self._turned.wait()

    async def turn(self, seconds: float) -> None:
        """Moves the time, and lets everybody who waited for it go on."""
        self._now += seconds
        self._turned.set()
        self._turned = asyncio.Event()
        for _ in range(20):
            await asyncio.sleep(0)
