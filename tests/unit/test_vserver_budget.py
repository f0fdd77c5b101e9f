"""What a vCenter that sheds load asks for is kept, each agent in its own time."""

from __future__ import annotations

import random

from common.errors import Reason, Refusal
from vserver.budget import FIRST_S, LAST_S, LONGEST_S, SPREAD, Budget


class Hand:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def waited(refusal: Refusal, seed: int = 1) -> float:
    clock = Hand()
    budget = Budget(clock, random.Random(seed))
    budget.refused(refusal)
    await budget.wait()
    return clock.now


async def test_the_delay_is_kept_and_spread() -> None:
    shed = Refusal(Reason.OVERLOADED, "", retry_after=2.0)
    all_ = [await waited(shed, seed) for seed in range(200)]
    assert min(all_) >= 2.0 and max(all_) <= 2.0 * SPREAD
    assert len({round(each, 1) for each in all_}) > 10, "they do not come back together"


async def test_without_an_answer_it_waits_longer_each_time_until_there_is_one() -> None:
    clock = Hand()
    budget = Budget(clock, random.Random(1))
    paused = []
    for _ in range(8):
        began = clock.now
        for _ in range(16):  # under way together: that is one failure
            budget.unanswered()
        await budget.wait()
        paused.append(clock.now - began)
    assert FIRST_S <= paused[0] <= FIRST_S * SPREAD and paused[4] > paused[0] * 2
    assert LAST_S <= paused[-1] <= LAST_S * SPREAD
    budget.refused(Refusal(Reason.CLAIM_HELD, "an answer like any other"))
    began = clock.now
    budget.unanswered()
    await budget.wait()
    assert clock.now - began <= FIRST_S * SPREAD


async def test_a_vcenter_that_stops_or_cannot_write_is_left_alone_for_a_while() -> None:
    for reason in (Reason.SHUTTING_DOWN, Reason.STORE_FAILED):
        assert await waited(Refusal(reason, "", retry_after=1.0)) >= 1.0


async def test_other_refusals_and_absurd_delays_hold_nobody_up() -> None:
    assert await waited(Refusal(Reason.OWNER_SILENT, "", retry_after=2.0)) == 0
    assert await waited(Refusal(Reason.OVERLOADED, "")) <= FIRST_S * SPREAD
    assert await waited(Refusal(Reason.OVERLOADED, "", retry_after=1e9)) <= LONGEST_S * SPREAD
