"""A stream of requests whose answers come in order, though several are worked on at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def pipelined(
    requests: AsyncIterator[T], work: Callable[[T], Coroutine[Any, Any, R]], limit: int
) -> AsyncGenerator[R, None]:
    """Requests are read while at most `limit` are worked on; each begins after the one before it.
    What goes wrong is raised when its turn to be answered comes."""
    under_way: deque[asyncio.Task[R]] = deque()
    coming: asyncio.Task[Any] | None = _next(requests)
    try:
        while coming or under_way:
            first = [under_way[0]] if under_way else []
            more = [coming] if coming and len(under_way) < limit else []
            await asyncio.wait([*first, *more], return_when=asyncio.FIRST_COMPLETED)
            if more and more[0].done():
                coming = _begin(more[0], requests, work, under_way)
            while under_way and under_way[0].done():
                yield under_way.popleft().result()
    finally:
        left = [*under_way, coming] if coming else [*under_way]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _begin(
    came: asyncio.Task[Any],
    requests: AsyncIterator[T],
    work: Callable[[T], Coroutine[Any, Any, R]],
    under_way: deque[asyncio.Task[R]],
) -> asyncio.Task[Any] | None:
    """Works on what came. Returns what comes next, if anything does."""
    if came.cancelled() or came.exception() is not None:
        under_way.append(came)
        return None
    if came.result() is None:
        return None
    under_way.append(asyncio.create_task(work(came.result())))
    return _next(requests)


def _next(requests: AsyncIterator[T]) -> asyncio.Task[T | None]:
    """None: there is no more."""

    async def read() -> T | None:
        return await anext(requests, None)

    return asyncio.create_task(read())
