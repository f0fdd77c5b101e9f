"""A policer's token bucket; time is an argument."""

from __future__ import annotations

from common.model.profile import Rate


class TokenBucket:
    """Full at first. A frame that finds too few tokens is dropped, and costs none."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._per_second = rate.bits_per_second / 8
        self._most = float(rate.burst)
        self._tokens = self._most
        self._at = now

    def takes(self, size: int, now: float) -> bool:
        """Whether a frame of so many bytes passes now (seconds on a monotonic clock)."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < size:
            return False
        self._tokens -= size
        return True
