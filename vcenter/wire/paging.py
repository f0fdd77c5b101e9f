"""Pages of a list that changes while it is read: the token is the last key given."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

DEFAULT, MAX = 100, 1000


def page(keys: Iterable[str], size: int, token: str) -> tuple[list[str], str]:
    """The next `size` keys after `token`, in order, and the token for the page after it."""
    limit = min(size or DEFAULT, MAX)
    found = heapq.nsmallest(limit + 1, (key for key in keys if key > token))
    return found[:limit], found[limit - 1] if len(found) > limit else ""
