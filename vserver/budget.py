"""When a vCenter sheds load it says when to come back: until then nothing more is asked of it, and
a thousand agents that heard the same do not come back in the same moment."""

from __future__ import annotations

import random

from common.clock import Clock
from common.errors import Reason, Refusal

SPREAD = 2.0  # at most so many times the delay that was asked for
LONGEST_S = 30.0


class Budget:
    """One for all that is said to a vCenter."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._until = 0.0

    def refused(self, refusal: Refusal) -> None:
        """Only what tells of load counts: other refusals are about what was said."""
        if refusal.reason is Reason.OVERLOADED and refusal.retry_after:
            delay = min(refusal.retry_after, LONGEST_S) * self._chance.uniform(1.0, SPREAD)
            self._until = max(self._until, self._clock.monotonic() + delay)

    async def wait(self) -> None:
        """Until it may be asked again."""
        while (left := self._until - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
