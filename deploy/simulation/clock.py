"""Time as a process sees it: virtual, with a wall clock that may be set by somebody."""

from __future__ import annotations

import asyncio

BEGINNING_MS = 1_790_000_000_000


class VirtualClock:
    """`common.clock.Clock`. `offset`: how far its wall clock is off, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.offset = 0.0

    def now_ms(self) -> int:
        return BEGINNING_MS + int((self._loop.time() + self.offset) * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
