"""For how long a guest that moves may stand still, and what is done when that cannot be kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DOWNTIME_MS = 400  # what a user notices (A24)
MAX_DOWNTIME_MS = 600_000
# A hypervisor stops the guest as soon as it believes that the rest fits into what is allowed. Its
# own limit would make most of a small guest "the rest": so little at first, more for a busy guest,
# by the rounds over its memory. From the last round on it is the whole budget.
_LADDER = ((0, 20), (4, 60), (8, 150), (12, 300))
WHOLE_AFTER = 20  # rounds


class IfOver(StrEnum):
    """What is done with a guest that writes too much to be switched within its budget."""

    REFUSE = "refuse"
    SLOW = "slow"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Budget:
    """`deadline_ms`: from the copy's begin to the switch; 0: none."""

    downtime_ms: int = DOWNTIME_MS
    if_over: IfOver = IfOver.SLOW
    deadline_ms: int = 0

    def allowed_ms(self, rounds: int) -> int:
        """For how long the guest may stand still after so many rounds over its memory."""
        if rounds >= WHOLE_AFTER:
            return self.downtime_ms
        step = next(ms for least, ms in reversed(_LADDER) if rounds >= least)
        return min(step, self.downtime_ms)
