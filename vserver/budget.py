"""What an agent may ask of a vCenter that is in trouble. When it sheds load it says when to come
back, when it does not answer nobody says anything: until then nothing more is asked of it, and a
thousand agents that heard the same do not come back in the same moment.

Whatever is waiting is one budget's: many VMs that are to be registered do not try one after the
other, each by itself.
"""

from __future__ import annotations

import random

from common.clock import Clock
from common.errors import Reason, Refusal

SPREAD = 2.0  # at most so many times the delay that was asked for
LONGEST_S = 30.0  # is believed
FIRST_S, LAST_S = 0.2, 2.0  # where none was asked for: it doubles until there is an answer

_ITS_OWN = frozenset({Reason.OVERLOADED, Reason.SHUTTING_DOWN, Reason.STORE_FAILED})


class Budget:
    """One for all that is said to a vCenter."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._until = 0.0
        self._failures = 0

    def answered(self) -> None:
        self._failures = 0

    def refused(self, refusal: Refusal) -> None:
        """Only what tells of the vCenter counts: other refusals are answers."""
        if refusal.reason in _ITS_OWN:
            self._hold(refusal.retry_after or 0.0)
        else:
            self.answered()

    def unanswered(self) -> None:
        self._hold(0.0)

    async def wait(self) -> None:
        """Until it may be asked again."""
        while (left := self._until - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)

    def _hold(self, asked: float) -> None:
        now = self._clock.monotonic()
        if now >= self._until:  # calls that were under way together fail together, and count once
            self._failures += 1
        own = min(FIRST_S * 2 ** min(self._failures - 1, 10), LAST_S)
        delay = min(asked, LONGEST_S) or own
        self._until = max(self._until, now + delay * self._chance.uniform(1.0, SPREAD))
