"""5.6, VM Replication (A18): in the contract; says clearly that it is not built yet."""

from __future__ import annotations

import grpc
import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.status import refusal_from_call
from tests.support.lab import Lab
from tests.support.nouns import vm, vm_id


async def test_replication_is_unimplemented_with_the_reason(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    request = pb.ReplicateRequest(vm_id=vm_id(1), near="host-2")
    for caller in (lab.operator, host.client):
        with lab.nothing_changes(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.signaling.Replicate(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        refusal = refusal_from_call(caught.value)
        assert refusal is not None and refusal.reason is Reason.UNIMPLEMENTED
