"""Whether the table may be behind the ledger that it shows. Alone on its store, a vCenter never is;
one replica of several is as soon as it can no longer be sure to hear what the others write."""

from __future__ import annotations

from collections.abc import Callable

from common.errors import Reason, Refusal

RETRY_S = 1.0


class Freshness:
    """`stale_since_ms`: the last moment at which the table was known to be whole; None: it is."""

    def __init__(self) -> None:
        self.stale_since_ms: int | None = None
        self._listeners: list[Callable[[int | None], None]] = []

    def listen(self, listener: Callable[[int | None], None]) -> None:
        """Called at every change; must not wait."""
        self._listeners.append(listener)

    def became(self, stale_since_ms: int | None) -> None:
        if stale_since_ms != self.stale_since_ms:
            self.stale_since_ms = stale_since_ms
            for listener in self._listeners:
                listener(stale_since_ms)

    def check(self) -> None:
        """Raises `Refusal`: nothing is decided on what may be old."""
        if self.stale_since_ms is not None:
            text = "this vCenter is cut off from its store; another replica may not be"
            raise Refusal(Reason.STORE_FAILED, text, retry_after=RETRY_S)
