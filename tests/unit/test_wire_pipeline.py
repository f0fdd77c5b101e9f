"""Requests are worked on ahead of their turn; what their caller sees stays in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from vcenter.wire.pipeline import pipelined


class Work:
    """Each request ends when it is let go."""

    def __init__(self, requests: int, fails: int = -1) -> None:
        self.let_go = [asyncio.Event() for _ in range(requests)]
        self.begun: list[int] = []
        self.cut: list[int] = []
        self._fails = fails

    async def requests(self) -> AsyncIterator[int]:
        for number in range(len(self.let_go)):
            yield number

    async def do(self, number: int) -> int:
        self.begun.append(number)
        try:
            await self.let_go[number].wait()
        except asyncio.CancelledError:
            self.cut.append(number)
            raise
        if number == self._fails:
            raise ValueError(number)
        return number


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_answers_are_in_order_and_no_more_is_begun_than_allowed() -> None:
    work = Work(4)
    async with aclosing(pipelined(work.requests(), work.do, 2)) as answers:
        first = asyncio.ensure_future(anext(answers))
        await settled()
        assert work.begun == [0, 1]
        work.let_go[1].set()
        await settled()
        assert not first.done() and work.begun == [0, 1]
        for event in work.let_go:
            event.set()
        assert [await first, *[answer async for answer in answers]] == [0, 1, 2, 3]


async def test_who_waits_for_an_answer_before_asking_on_gets_it() -> None:
    asked: asyncio.Queue[int | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[int]:
        while (number := await asked.get()) is not None:
            yield number

    async def double(number: int) -> int:
        return number * 2

    async with aclosing(pipelined(requests(), double, 2)) as answers:
        for number in (1, 2, 3):
            asked.put_nowait(number)
            assert await anext(answers) == number * 2
        asked.put_nowait(None)
        assert [answer async for answer in answers] == []


async def test_a_failure_has_its_turn_and_what_comes_after_it_is_cut() -> None:
    work = Work(3, fails=1)
    work.let_go[1].set()
    answers = pipelined(work.requests(), work.do, 3)
    first = asyncio.ensure_future(anext(answers))
    await settled()
    assert not first.done()
    work.let_go[0].set()
    assert await first == 0
    with pytest.raises(ValueError, match="1"):
        await anext(answers)
    assert work.cut == [2]


async def test_requests_that_break_off_are_said_after_what_came_before() -> None:
    async def requests() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    async def same(number: int) -> int:
        await settled()
        return number

    answers = pipelined(requests(), same, 2)
    assert await anext(answers) == 1
    with pytest.raises(ConnectionError):
        await anext(answers)


async def test_an_abandoned_stream_leaves_nothing_running() -> None:
    work = Work(2)
    answers = pipelined(work.requests(), work.do, 2)
    first = asyncio.ensure_future(anext(answers))
    await settled()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert sorted(work.cut) == [0, 1]
