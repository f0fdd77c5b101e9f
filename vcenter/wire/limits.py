"""How much one caller may ask for: calls a second, and calls at a time. Beyond that it is told when
to come back, and nobody else notices.

Tenants and watchers share a vCenter with the infrastructure, and get less of it than that does.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from common.errors import Reason, Refusal
from vcenter.wire.caller import Caller

FORGET = 10_000  # callers remembered; those that ask for nothing are dropped beyond that


@dataclass(frozen=True, slots=True)
class Allowance:
    """`rate`: calls a second, for one second's worth at once; `at_a_time`: streams included."""

    rate: float
    at_a_time: int


@dataclass(slots=True)
class _Account:
    left: float
    at: float
    running: int = 0


class CallLimits:
    """A bucket of tokens and a count for each caller."""

    def __init__(
        self,
        clock: Clock,
        infrastructure: Allowance,
        confined: Allowance,
    ) -> None:
        self._clock = clock
        self._infrastructure = infrastructure
        self._confined = confined
        self._accounts: dict[tuple[str, str], _Account] = {}

    def enter(self, caller: Caller) -> None:
        """Raises `Refusal(OVERLOADED)`. Whoever enters must `leave`."""
        allowed = self._confined if caller.confined else self._infrastructure
        now = self._clock.monotonic()
        account = self._accounts.get((caller.role, caller.name))
        if account is None:
            account = self._open(caller, allowed, now)
        left = min(allowed.rate, account.left + (now - account.at) * allowed.rate)
        account.at = now
        account.left = left
        if left < 1.0 - 1e-6:
            text = f"{caller} makes more than {allowed.rate:.0f} calls a second"
            raise Refusal(
                Reason.OVERLOADED, text, retry_after=max(0.1, (1.0 - left) / allowed.rate)
            )
        if account.running >= allowed.at_a_time:
            text = f"{caller} has {account.running} calls and streams under way"
            raise Refusal(Reason.OVERLOADED, text, retry_after=1.0)
        account.left = left - 1.0
        account.running += 1

    def leave(self, caller: Caller) -> None:
        self._accounts[caller.role, caller.name].running -= 1

    def _open(self, caller: Caller, allowed: Allowance, now: float) -> _Account:
        if len(self._accounts) >= FORGET:
            busy = {key: one for key, one in self._accounts.items() if one.running}
            self._accounts = busy
        account = self._accounts[caller.role, caller.name] = _Account(allowed.rate, now)
        return account
