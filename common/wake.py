"""Waking a loop: rings are merged until it has heard them, so that nothing is queued."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from common.clock import Clock


class Wake:
    """One loop waits, anybody rings. Rung before it waits counts too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    def forget(self) -> None:
        """What has rung so far is known already."""
        self._event.clear()

    @property
    def rung(self) -> bool:
        return self._event.is_set()

    async def heard(self, at_most: float | None = None) -> None:
        """Wait for a ring, or for `at_most` seconds."""
        if at_most is None or self._event.is_set():
            await self._event.wait()
        else:
            await first_of(self._event.wait(), self._clock.sleep(at_most))
        self._event.clear()


class Bell:
    """Many may wait for the next ring; nobody hears one that came before."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def next(self) -> None:
        await self._next.wait()


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them is over; the others are cancelled, and their end awaited."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
