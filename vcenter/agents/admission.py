"""Not all at once: how many agents may be told everything at the same time.

After a restart thousands come back together. Who is not let in is told when to come again, each a
little later than the one before, as fast as others were done; until then its lease goes on.
"""

from __future__ import annotations

from common.clock import Clock
from common.errors import Reason, Refusal

AT_ONCE = 64
FIRST_PACE = 0.005  # seconds from one that is done to the next, before any was measured
SLOWEST_PACE = 0.2
SOONEST = 0.1  # seconds
_WEIGHT = 0.1  # of the newest measurement


class Turn:
    """One agent's; ends once, however often it is said."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def end(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.ended()


class Admission:
    """`longest`: seconds after which everybody is to try again at the latest."""

    def __init__(self, clock: Clock, longest: float, at_once: int = AT_ONCE) -> None:
        self._clock = clock
        self._longest = longest
        self._at_once = at_once
        self._inside = 0
        self._pace = FIRST_PACE
        self._last_end = 0.0
        self._booked = 0.0  # until when there is somebody for every moment

    def enter(self) -> Turn:
        """Raises `Refusal(OVERLOADED)` with the seconds to wait."""
        if self._inside >= self._at_once:
            raise Refusal(
                Reason.OVERLOADED,
                f"{self._inside} agents are being told everything; others wait for their turn",
                retry_after=self._book(),
            )
        self._inside += 1
        return Turn(self)

    def _book(self) -> float:
        now = self._clock.monotonic()
        self._booked = min(max(self._booked, now + SOONEST) + self._pace, now + self._longest)
        return self._booked - now

    def ended(self) -> None:
        now = self._clock.monotonic()
        if self._inside == self._at_once:  # others may be waiting: this is how fast it goes
            took = min(now - self._last_end, SLOWEST_PACE)
            self._pace += _WEIGHT * (took - self._pace)
        self._last_end = now
        self._inside -= 1
