"""What a refused call leaves behind: not its request, which may be of 4 MiB."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2
from tests.support.calls import refusal_of
from tests.support.lab import running_lab
from tests.support.nouns import vm_id

CALLS = 20
KEYS = 20_000  # twice as many as are read


@pytest.fixture
def no_collector() -> Iterator[None]:
    """It comes after so many calls that their requests would fill the memory."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.mark.parametrize(
    ("caller", "reason"), [("operator/ada", Reason.TOO_LARGE), ("tenant/blue", Reason.OVERLOADED)]
)
async def test_its_request_goes_with_it(no_collector: None, caller: str, reason: Reason) -> None:
    """Refused by the method, or before anybody has looked at it."""
    confined = {"calls_per_second": 1.0, "at_a_time": 10}
    request = pb.LookupRequest(keys=[types_pb2.VmKey(vm_id=vm_id(1))] * KEYS)
    async with running_lab(confined=confined) as lab:
        client = lab.client(caller)
        await refusal_of(client.signaling.Lookup(request))  # and then the allowance is used up
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(CALLS):
            assert (await refusal_of(client.signaling.Lookup(request))).reason is reason
        after, _ = tracemalloc.get_traced_memory()
    assert after - before < 3 * request.ByteSize(), "of twenty, what the last may still hold"
