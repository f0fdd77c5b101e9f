"""One caller's calls: so many a second, so many at a time; others do not notice."""

from __future__ import annotations

import pytest

from common.errors import Reason, Refusal
from common.model.caller import parse_caller
from vcenter.wire.limits import Allowance, CallLimits

TENANT, OTHER, HOST = map(parse_caller, ("tenant/blue", "tenant/red", "vserver/host-1"))


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def limits(clock: Hand) -> CallLimits:
    return CallLimits(clock, Allowance(1000.0, 50), Allowance(10.0, 3))


def test_a_caller_that_asks_too_often_is_told_when_to_come_back(
    limits: CallLimits, clock: Hand
) -> None:
    for _ in range(10):
        limits.enter(TENANT)
        limits.leave(TENANT)
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT)
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after == 0.1
    limits.enter(OTHER)
    limits.enter(HOST)
    clock.now += caught.value.retry_after
    limits.enter(TENANT)


def test_no_more_than_so_many_at_a_time(limits: CallLimits) -> None:
    for _ in range(3):
        limits.enter(TENANT)
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT)
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after
    limits.leave(TENANT)
    limits.enter(TENANT)
    limits.enter(OTHER)


def test_what_was_not_asked_for_does_not_add_up_for_ever(limits: CallLimits, clock: Hand) -> None:
    limits.enter(TENANT)
    limits.leave(TENANT)
    clock.now += 3600
    for _ in range(10):
        limits.enter(TENANT)
        limits.leave(TENANT)
    with pytest.raises(Refusal):
        limits.enter(TENANT)


def test_callers_are_forgotten_but_not_while_they_are_busy(limits: CallLimits) -> None:
    for _ in range(3):
        limits.enter(TENANT)
    for number in range(20_001):
        caller = parse_caller(f"operator/o-{number}/view")
        limits.enter(caller)
        limits.leave(caller)
    assert len(limits._accounts) <= 10_001
    with pytest.raises(Refusal):
        limits.enter(TENANT)
