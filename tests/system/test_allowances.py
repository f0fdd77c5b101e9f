"""The allowances of vcenter.toml are those that callers meet."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import (
    directory_pb2,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2,
)
from common.rpc import identity
from tests.support.calls import Client, refusal_of
from tests.support.lab import running_lab
from tests.support.nouns import vm, vm_id

WITHIN_S = 60.0


async def test_a_tenant_has_no_more_streams_than_it_is_allowed() -> None:
    confined = {"calls_per_second": 1000.0, "at_a_time": 1}
    async with running_lab(confined=confined) as lab:
        blue, red = lab.client("tenant/blue"), lab.client("tenant/red")
        watch = blue.directory.Watch(directory_pb2.WatchRequest())
        await watch.read()
        request = directory_pb2.CountVmsRequest()
        refusal = await refusal_of(blue.directory.CountVms(request))
        assert refusal.reason is Reason.OVERLOADED and refusal.retry_after
        await red.directory.CountVms(request)  # nobody else notices
        await lab.operator.directory.CountVms(request)
        watch.cancel()


async def test_what_nobody_waits_for_any_more_is_not_gone_on_with() -> None:
    """A call that would last a minute ends with its deadline, here as well as where it came from:
    there is room for the next one."""
    confined = {"calls_per_second": 1000.0, "at_a_time": 1}
    async with running_lab(confined=confined) as lab:
        await lab.group()
        await (await lab.agent("host-1")).register(vm(1))
        await lab.agent("host-2")  # which does nothing about the move that comes to it
        blue = lab.client("tenant/blue")
        request = signaling_pb2.RelocateRequest(vm_id=vm_id(1), destination="host-2")
        move = (await blue.signaling.Relocate(request)).operation
        wait = operations_pb2_grpc.OperationsStub(lab.channel).Wait
        asked = operations_pb2.WaitOperationRequest(
            operation_id=move.operation_id, timeout={"seconds": 600}
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wait(asked, metadata=identity("tenant/blue"), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(WITHIN_S):
            while await is_overloaded(blue):  # noqa: ASYNC110 - it is the server that changes
                await asyncio.sleep(0.05)


async def is_overloaded(client: Client) -> bool:
    try:
        await client.directory.CountVms(directory_pb2.CountVmsRequest())
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return True
    return False
