"""Waiting for threads by the injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

from common.clock import Clock

T = TypeVar("T")


async def within(clock: Clock, seconds: float, work: asyncio.Future[T]) -> T:
    """The work's result, or TimeoutError. The thread behind it runs on: it cannot be stopped."""
    work.add_done_callback(seen)
    if not await first(clock, seconds, (work,)):
        raise TimeoutError(f"libvirt gave no answer in {seconds:g} s")
    return work.result()


async def first(
    clock: Clock, seconds: float, futures: Iterable[asyncio.Future[Any]]
) -> set[asyncio.Future[Any]]:
    """Those that are done as soon as one is, none when the time is over; cancels none."""
    timer: asyncio.Future[Any] = asyncio.ensure_future(clock.sleep(seconds))
    try:
        done, _ = await asyncio.wait({timer, *futures}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return done - {timer}


def seen(work: asyncio.Future[Any]) -> None:
    """Whoever gave up on a call does not ask how it failed."""
    if not work.cancelled():
        work.exception()
