"""How much one caller may ask for: calls a second, and calls at a time. Beyond that it is told when
to come back, and nobody else notices.

What a call costs the vCenter grows with its request: a long one counts as several. The messages of
a stream count as calls do, and are not refused but held back: their sender finds that the stream
takes no more. Tenants and watchers share a vCenter with the infrastructure, and get less of it than
that does.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from common.errors import Reason, Refusal
from vcenter.wire.caller import Caller

FORGET = 10_000  # callers remembered; those that ask for nothing are dropped beyond that


@dataclass(frozen=True, slots=True)
class Allowance:
    """`rate`: calls a second, for one second's worth at once; `at_a_time`: streams included;
    `length`: bytes of request that count as one call."""

    rate: float
    at_a_time: int
    length: int


class Account:
    """One caller's bucket of tokens, and how many calls it has under way. What costs more than a
    full one holds is let through when it is full, and overdraws it."""

    __slots__ = ("_allowed", "_at", "_caller", "_clock", "_left", "running")

    def __init__(self, clock: Clock, allowed: Allowance, caller: Caller) -> None:
        self._clock = clock
        self._allowed = allowed
        self._caller = caller
        self._left = allowed.rate
        self._at = clock.monotonic()
        self.running = 0

    def enter(self) -> None:
        """Raises `Refusal(OVERLOADED)`."""
        self._refill()
        if self.running >= self._allowed.at_a_time:
            text = f"{self._caller} has {self.running} calls and streams under way"
            raise Refusal(Reason.OVERLOADED, text, retry_after=1.0)
        if self._left >= 1.0:
            self._left -= 1.0
        else:
            self._spend(1.0, enough=1.0)
        self.running += 1

    def leave(self) -> None:
        self.running -= 1

    def charge(self, size: int) -> None:
        """For a request of so many bytes, beyond what `enter` took. Raises as that does."""
        if cost := size // self._allowed.length:
            self._spend(cost, enough=min(cost, self._allowed.rate - 1.0))

    async def pace(self, size: int) -> None:
        """Return when one more message of a stream, of so many bytes, may be looked at."""
        self._refill()
        self._left -= 1 + size // self._allowed.length
        if self._left < 0:
            await self._clock.sleep(-self._left / self._allowed.rate)

    def _spend(self, cost: float, enough: float) -> None:
        """`enough`: what must be there."""
        rate, lacks = self._allowed.rate, enough - self._left
        if lacks > 1e-6:
            text = f"{self._caller} asks for more than {rate:.0f} calls a second"
            raise Refusal(Reason.OVERLOADED, text, retry_after=max(0.1, lacks / rate))
        self._left -= cost

    def _refill(self) -> None:
        now, rate = self._clock.monotonic(), self._allowed.rate
        left = self._left + (now - self._at) * rate
        self._left = rate if left > rate else left
        self._at = now


class CallLimits:
    """Everybody's accounts."""

    def __init__(self, clock: Clock, infrastructure: Allowance, confined: Allowance) -> None:
        self._clock = clock
        self._infrastructure = infrastructure
        self._confined = confined
        self._accounts: dict[tuple[str, str], Account] = {}

    def enter(self, caller: Caller) -> Account:
        """Raises `Refusal(OVERLOADED)`. Whoever enters must `leave`."""
        account = self._accounts.get((caller.role, caller.name)) or self._open(caller)
        account.enter()
        return account

    def _open(self, caller: Caller) -> Account:
        if len(self._accounts) >= FORGET:
            self._accounts = {key: one for key, one in self._accounts.items() if one.running}
        allowed = self._confined if caller.confined else self._infrastructure
        account = self._accounts[caller.role, caller.name] = Account(self._clock, allowed, caller)
        return account
