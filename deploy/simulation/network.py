"""The network between processes: links that delay, hold back, cut, and do so one way at a time.

What travels over one stream keeps its order, as TCP does; streams overtake each other. A direction
that is blocked holds everything back, and ends the connections over it when their keepalive finds
out, or when somebody cuts them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from deploy.simulation.journal import Journal
from deploy.simulation.loop import Process

Ends = tuple[str, str]  # from, to

KEEPALIVE_S = 15.0  # common.rpc: a ping every 10 s, answered within 5 s
USUAL = (0.0003, 0.002)  # seconds one way


class Breakable(Protocol):
    """A call in progress: both of its ends can be told that the connection is gone."""

    ends: Ends

    def break_off(self, why: str) -> None: ...


class Network:
    """`kernel` is the process in which messages travel; it never dies."""

    def __init__(self, kernel: Process, chance: random.Random, journal: Journal) -> None:
        self.kernel = kernel
        self.chance = chance
        self.journal = journal
        self.calls: dict[Breakable, None] = {}
        self.lossy = 0.0  # share of calls whose connection breaks under them
        self.doubling = 0.0  # share of unary calls that arrive twice
        self._slow: dict[Ends, tuple[float, float]] = {}
        self._blocked: dict[Ends, int] = {}  # and the number of the blockade
        self._blockades = 0
        self._pipes: dict[Pipe, None] = {}  # with something held back

    def delay(self, ends: Ends, chance: random.Random | None = None) -> float:
        """Seconds that the next message takes in this direction."""
        return (chance or self.chance).uniform(*self._slow.get(ends, USUAL))

    def is_blocked(self, ends: Ends) -> bool:
        return ends in self._blocked

    # ---- what fate does ----

    def block(self, ends: Ends) -> None:
        """Nothing gets through in this direction."""
        self.journal.say("network", f"blocked {ends[0]} -> {ends[1]}")
        self._blockades += 1
        self._blocked[ends] = self._blockades
        self.kernel.after(KEEPALIVE_S, self._noticed, ends, self._blockades)

    def unblock(self, ends: Ends) -> None:
        if self._blocked.pop(ends, None) is not None:
            self.journal.say("network", f"open again {ends[0]} -> {ends[1]}")
            for pipe in [p for p in self._pipes if p.ends == ends]:
                del self._pipes[pipe]
                pipe.flush()

    def slow_down(self, ends: Ends, at_most: float) -> None:
        self.journal.say("network", f"slow {ends[0]} -> {ends[1]}: up to {at_most:.2f} s")
        self._slow[ends] = (USUAL[0], at_most)

    def cut(self, a: str, b: str, why: str = "connection reset") -> None:
        """Every connection between the two is gone; new ones can be made."""
        self.journal.say("network", f"cut {a} - {b}: {why}")
        for call in [c for c in self.calls if c.ends in ((a, b), (b, a))]:
            call.break_off(why)

    def heal(self) -> None:
        for ends in list(self._blocked):
            self.unblock(ends)
        self._slow.clear()
        self.lossy = self.doubling = 0.0

    # ---- its own part ----

    def hold_back(self, pipe: Pipe) -> None:
        self._pipes[pipe] = None

    def opened(self, call: Breakable) -> None:
        """A call over a blocked link hangs, until the blockade has lasted too long."""
        self.calls[call] = None
        for ends in (call.ends, call.ends[::-1]):
            if ends in self._blocked:
                self.kernel.after(KEEPALIVE_S, self._noticed, ends, self._blocked[ends])

    def _noticed(self, ends: Ends, blockade: int) -> None:
        if self._blocked.get(ends) == blockade:
            self.cut(*ends, why="keepalive watchdog timeout")


class Pipe:
    """One direction of one stream. `bound`: so many may be under way before a sender waits."""

    def __init__(self, network: Network, ends: Ends, deliver: Callable[[Any], None]) -> None:
        self.ends = ends
        self.under_way = 0
        self._network = network
        self._deliver = deliver
        # Its own, so that nothing depends on who of several sends first at the same moment.
        self._chance = random.Random(network.chance.getrandbits(64))
        self._last = 0.0
        self._held: deque[Any] = deque()
        self._travelling: deque[Any] = deque()

    def push(self, item: Any) -> None:
        self.under_way += 1
        if self._held or self._network.is_blocked(self.ends):
            self._held.append(item)
            self._network.hold_back(self)
        else:
            self._travel(item)

    def flush(self) -> None:
        held, self._held = self._held, deque()
        for item in held:
            self._travel(item)

    def _travel(self, item: Any) -> None:
        kernel = self._network.kernel
        now = kernel.now()
        self._last = max(self._last, now + self._network.delay(self.ends, self._chance))
        self._travelling.append(item)
        kernel.after(self._last - now, self._arrive)

    def _arrive(self) -> None:
        """Timers of the same moment go off in no order; what travels keeps its own."""
        self.under_way -= 1
        self._deliver(self._travelling.popleft())
