"""Pages of a list that changes while it is read: the token is the last key given."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

DEFAULT, MAX = 100, 1000


def page(
    keys: Iterable[str], size: int, token: str, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[list[str], str]:
    """The next `size` wanted keys after `token`, in order, and the token for the page after it.

    `wanted` costs more than an order does, so it is asked of as few as fill the page.
    """
    limit = min(size or DEFAULT, MAX)
    found = list(islice(filter(wanted, _in_order(keys, token)), limit + 1))
    return found[:limit], found[limit - 1] if len(found) > limit else ""


def _in_order(keys: Iterable[str], token: str) -> Iterator[str]:
    """A heap, not a sort: mostly the first few of very many are taken."""
    heap = [key for key in keys if key > token]
    heapq.heapify(heap)
    while heap:
        yield heapq.heappop(heap)
