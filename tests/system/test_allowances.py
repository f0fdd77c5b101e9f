"""The allowances of vcenter.toml are those that callers meet."""

from __future__ import annotations

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2
from tests.support.calls import refusal_of
from tests.support.lab import running_lab


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
