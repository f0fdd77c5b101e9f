"""What every daemon stands on: processes that end and are started again, clocks, the network."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from typing import Any

from common.errors import Refusal
from deploy.simulation.clock import VirtualClock
from deploy.simulation.journal import Journal
from deploy.simulation.loop import Process, VirtualLoop
from deploy.simulation.network import Network
from deploy.simulation.server import Servers
from deploy.simulation.truth import Truth

RESTART_S = (0.2, 2.0)  # systemd's RestartSec, and what a start takes


class Ground:
    def __init__(self, seed: int, loop: VirtualLoop, journal: Journal) -> None:
        self.loop = loop
        self.journal = journal
        self.chance = random.Random(f"{seed}/world")
        self.processes: list[Process] = []
        self.kernel = self.process("kernel")
        self._clocks: list[VirtualClock] = []
        self._offset = 0.0  # of the wall clocks
        self.clock = self.new_clock()
        self.truth = Truth(journal, loop.time)
        self.network = Network(self.kernel, random.Random(f"{seed}/network"), journal)
        self.servers = Servers()
        self._ids = random.Random(f"{seed}/ids")

    def process(self, name: str) -> Process:
        made = Process(self.loop, name)
        self.processes.append(made)
        return made

    def new_clock(self) -> VirtualClock:
        clock = VirtualClock(self.loop)
        clock.offset = self._offset
        self._clocks.append(clock)
        return clock

    def set_clocks(self, jump: float) -> None:
        """Every wall clock is set at once."""
        self._offset += jump
        for clock in self._clocks:
            clock.offset = self._offset

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def defect(self, text: str) -> None:
        """Something that no fault excuses."""
        self.journal.violated("defect", text)

    # ---- processes end, and systemd starts them again ----

    def owned(self, process: Process, main: Any, again: Callable[[], None]) -> None:
        """`main` is what the process is for; `again` starts another in its place."""
        task = process.spawn(main)
        task.add_done_callback(lambda t: self._ended(process, t))
        process.mourners.append(lambda: self._restart_later(again))
        process.keep(task)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        """A daemon that ends by itself has failed, or was asked to."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not _is_expected(error):
            self.defect(f"{process.name} failed: {error!r}")
        self.journal.say(process.name, "process ended" + (f": {error}" if error else ""))
        process.kill()

    def _restart_later(self, again: Callable[[], None]) -> None:
        self.kernel.after(self.chance.uniform(*RESTART_S), again)


def _is_expected(error: BaseException) -> bool:
    """Daemons end when what they are handed cannot be opened; they are started again."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_expected(e) for e in error.exceptions)
    return isinstance(error, Refusal | TimeoutError | OSError)
