"""How a copy between `memory` hosts goes on in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.clock import Clock
from common.model.budget import IfOver
from common.model.operation import Progress
from vserver.core.pace import Pace

BRAKE, LAST_BRAKE = 10, 99  # percent


@dataclass(frozen=True, slots=True)
class CopySpeed:
    """How fast a fleet copies: in steps, then a switch during which the guest stands still. For how
    long it did is told `figures_after` so many seconds, as libvirt does; 0: with the copy's end."""

    bytes_per_second: float = 1e9
    steps: int = 10
    downtime: float = 0.02
    figures_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be copied: bytes of disks and of memory, and bytes of that memory which the guest
    writes meanwhile in a second."""

    disks: int
    memory: int
    writes: float = 0.0


@dataclass(frozen=True, slots=True)
class Left:
    """When the guest is to stand still: seconds for the rest, bytes sent by then, rounds, and how
    far it was slowed down."""

    seconds: float
    sent: int
    rounds: int
    slowed_percent: int


class Course:
    """One copy. `check` raises when it cannot go on."""

    def __init__(
        self,
        clock: Clock,
        speed: CopySpeed,
        pace: Pace,
        progress: Callable[[Progress], None],
        check: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._speed = speed
        self._pace = pace
        self._progress = progress
        self._check = check
        self._began = clock.monotonic()

    async def run(self, load: Load) -> Left:
        """Disks, then memory; then, round by round, what was written meanwhile. Raises `Refusal`
        where its budget wants that."""
        await self._once(load)
        rate = self._speed.bytes_per_second
        took, sent, rounds, slowed = load.memory / rate, load.disks + load.memory, 1, 0
        while True:
            rest = min(load.writes * (100 - slowed) / 100 * took, load.memory)
            seconds = self._clock.monotonic() - self._began
            took = rest / rate
            if took * 1000 <= self._pace.allowed_ms(rounds, seconds):
                return Left(self._speed.downtime + took, sent + int(rest), rounds, slowed)
            await self._clock.sleep(took)
            self._check()
            sent, rounds = sent + int(rest), rounds + 1
            if self._pace.budget.if_over is IfOver.SLOW:
                slowed = min(slowed + BRAKE, LAST_BRAKE)

    async def _once(self, load: Load) -> None:
        total, rate = load.disks + load.memory, self._speed.bytes_per_second
        for step in range(1, self._speed.steps + 1):
            await self._clock.sleep(total / rate / self._speed.steps)
            self._check()
            done = total * step // self._speed.steps
            of_disks = load.disks, min(done, load.disks)
            self._progress(Progress(total, done, total - done, rate, 1, *of_disks))
