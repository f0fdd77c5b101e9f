"""How a copy of a running guest goes, by what limits it: rounds over what was written meanwhile.

The first round sends the guest's memory; each further one what the guest wrote during the one
before. When the rest fits into the downtime that is allowed by then, the guest stands still for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.model.budget import Budget

ROUNDS = 60  # after which a guest that is slowed down further and further has given in
# QEMU's auto-converge: where more than half of what was sent in a second is written again
# meanwhile, for the second time, the guest is slowed down.
FIRST_BRAKE, BRAKE, LAST_BRAKE = 0.2, 0.1, 0.99
LOOK_S, TIMES = 1.0, 2
DEFAULT = Budget()


@dataclass(frozen=True, slots=True)
class Course:
    """`travel_ms` includes `still_ms`, in which the guest stands still."""

    travel_ms: float
    still_ms: float


def course(memory: float, dirty: float, speed: float, budget: Budget = DEFAULT) -> Course:
    """`memory`: bytes that are not empty; `dirty`: bytes that the guest writes in a second;
    `speed`: bytes a second, more than 0."""
    travel, rest, brake = 0.0, memory, _Brake()
    for done in range(ROUNDS):
        took = rest / speed
        if done and took * 1000 <= budget.allowed_ms(done):
            break
        travel += took
        written = min(dirty * brake.leaves * took, memory)
        brake.seen(took, rest, written)
        rest = written
    still = rest / speed
    return Course((travel + still) * 1000, still * 1000)


@dataclass(slots=True)
class _Brake:
    """`leaves`: the share of its time that the guest still runs."""

    leaves: float = 1.0
    _seconds: float = 0.0
    _sent: float = 0.0
    _written: float = 0.0
    _hot: int = 0

    def seen(self, seconds: float, sent: float, written: float) -> None:
        self._seconds += seconds
        self._sent += sent
        self._written += written
        if self._seconds < LOOK_S:
            return
        self._hot += self._written > self._sent / 2
        self._seconds = self._sent = self._written = 0.0
        if self._hot >= TIMES:
            self._hot = 0
            more = FIRST_BRAKE if self.leaves == 1.0 else BRAKE
            self.leaves = max(self.leaves - more, 1 - LAST_BRAKE)
