"""For how long a guest may stand still at its switch, as its copy goes on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import Reason, Refusal
from common.model.budget import MAX_DOWNTIME_MS, WHOLE_AFTER, Budget, IfOver

# With the whole budget, a guest that can be kept within it is switched in a round or two.
HOPELESS_AFTER = WHOLE_AFTER + 10  # rounds


@dataclass(slots=True)
class Pace:
    """Of one copy. `suspended`: its guest may stand still for as long as the rest takes."""

    budget: Budget = Budget()
    suspended: bool = False

    def allowed_ms(self, rounds: int, seconds: float) -> int:
        """After so many rounds over its memory, and seconds. Raises `Refusal` when that is to end
        the copy; once `suspended`, it does not any more."""
        if not self.suspended and not (why := self._over(rounds, seconds)):
            return self.budget.allowed_ms(rounds)
        if not self.suspended and self.budget.if_over is not IfOver.SUSPEND:
            raise Refusal(Reason.DOWNTIME_NOT_KEPT, f"{why}: its guest writes too much")
        self.suspended = True
        return MAX_DOWNTIME_MS

    def _over(self, rounds: int, seconds: float) -> str:
        """Why the copy has failed its budget; a guest that is slowed down gives in some day."""
        budget = self.budget
        if budget.deadline_ms and seconds * 1000 >= budget.deadline_ms:
            return f"not switched within {budget.deadline_ms / 1000:g} s"
        if rounds >= HOPELESS_AFTER and budget.if_over is not IfOver.SLOW:
            return f"more than {budget.downtime_ms} ms were left after {rounds} rounds"
        return ""
