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
    return CallLimits(clock, Allowance(1000.0, 50, 1_000_000), Allowance(10.0, 3, 100))


def test_a_caller_that_asks_too_often_is_told_when_to_come_back(
    limits: CallLimits, clock: Hand
) -> None:
    for _ in range(10):
        limits.enter(TENANT).leave()
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT)
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after == 0.1
    limits.enter(OTHER)
    limits.enter(HOST)
    clock.now += caught.value.retry_after
    limits.enter(TENANT)


def test_no_more_than_so_many_at_a_time(limits: CallLimits) -> None:
    _, _, account = (limits.enter(TENANT) for _ in range(3))
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT)
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after
    account.leave()
    limits.enter(TENANT)
    limits.enter(OTHER)


def test_what_was_not_asked_for_does_not_add_up_for_ever(limits: CallLimits, clock: Hand) -> None:
    limits.enter(TENANT).leave()
    clock.now += 3600
    for _ in range(10):
        limits.enter(TENANT).leave()
    with pytest.raises(Refusal):
        limits.enter(TENANT)


def test_callers_are_forgotten_but_not_while_they_are_busy(limits: CallLimits) -> None:
    for _ in range(3):
        limits.enter(TENANT)
    for number in range(20_001):
        caller = parse_caller(f"operator/o-{number}/view")
        limits.enter(caller).leave()
    assert len(limits._accounts) <= 10_001
    with pytest.raises(Refusal):
        limits.enter(TENANT)


def test_a_long_request_counts_as_several_calls(limits: CallLimits, clock: Hand) -> None:
    account = limits.enter(TENANT)
    account.charge(2_950)
    account.leave()
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT)
    assert caught.value.retry_after == pytest.approx(2.1), "it owes 20, and one call costs one"
    clock.now += 2.1
    limits.enter(TENANT)
    limits.enter(HOST).charge(2_950)
    limits.enter(HOST)


def test_a_long_request_waits_for_as_much_as_there_can_be(limits: CallLimits, clock: Hand) -> None:
    account = limits.enter(TENANT)
    account.charge(500)
    account.leave()
    with pytest.raises(Refusal) as caught:
        limits.enter(TENANT).charge(500)
    assert caught.value.retry_after == pytest.approx(0.2), "five, of which three are left"
    limits = CallLimits(clock, Allowance(1.0, 1, 1), Allowance(1.0, 1, 1))
    limits.enter(TENANT).charge(50)
    with pytest.raises(Refusal):
        limits.enter(TENANT)


async def test_a_stream_is_held_back_to_the_same_rate(limits: CallLimits, clock: Hand) -> None:
    account, begun = limits.enter(TENANT), clock.now
    for _ in range(9):
        await account.pace(0)
    assert clock.now == begun, "a second's worth at once"
    for _ in range(20):
        await account.pace(0)
    assert clock.now - begun == pytest.approx(2.0)
    await account.pace(900)
    assert clock.now - begun == pytest.approx(3.0)
    with pytest.raises(Refusal):
        limits.enter(TENANT)
