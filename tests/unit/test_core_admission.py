"""Letting agents in a few at a time, and telling the others when to come again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from common.errors import Reason, Refusal
from tests.support.held import HandClock
from vcenter.agents.admission import SOONEST, Admission

LONGEST = 5.0


def refused(admission: Admission) -> float:
    with pytest.raises(Refusal) as caught:
        admission.enter()
    assert caught.value.reason is Reason.OVERLOADED and caught.value.retry_after is not None
    return caught.value.retry_after


def test_a_turn_is_free_again_when_it_ends_and_ends_once() -> None:
    admission = Admission(HandClock(), LONGEST, at_once=2)
    first, _second = admission.enter(), admission.enter()
    refused(admission)
    first.end()
    first.end()
    admission.enter()
    refused(admission)


async def test_waits_are_spread_as_fast_as_turns_end_and_never_too_long() -> None:
    clock = HandClock()
    admission = Admission(clock, LONGEST, at_once=1)
    turn = admission.enter()
    for _ in range(60):  # a turn takes a tenth of a second here
        await clock.turn(0.1)
        turn.end()
        turn = admission.enter()
    waits = [refused(admission) for _ in range(100)]
    assert waits[0] >= SOONEST
    steps = [later - sooner for sooner, later in pairwise(waits)]
    assert all(0.09 < step < 0.11 for step in steps[:40])
    assert waits[-1] == LONGEST
    await clock.turn(LONGEST)
    assert refused(admission) < 1.0
