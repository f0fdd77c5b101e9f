"""The only module that reads the time or sleeps. Everything else is handed a `Clock`."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time as a port, so that the same code runs in production and on virtual time."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since the Unix epoch. For people and records, never for order."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back. For leases and durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; raises CancelledError when the caller is cancelled."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
