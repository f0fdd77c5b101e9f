"""Calls between vCenters: what the other side cancels is an answer, what we cancel is not."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from vcenter.federation.neighbour import answer_to


async def test_what_the_other_side_has_cancelled_is_a_call_that_failed() -> None:
    async def cancelled_there() -> None:
        raise asyncio.CancelledError

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answer_to(cancelled_there())
    assert failed.value.code() is grpc.StatusCode.CANCELLED


async def test_whoever_asks_can_be_cancelled() -> None:
    asking = asyncio.create_task(answer_to(asyncio.Event().wait()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
