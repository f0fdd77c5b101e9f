"""5.5, VM Relocation of several VMs (A17): whose turn comes when."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from tests.support.lab import Lab
from tests.support.nouns import vm, vm_id
from tests.support.several import (
    CANCELLED,
    FAILED,
    PREPARING,
    QUEUED,
    SUCCEEDED,
    Willing,
    ended,
    get,
    hosts,
    parts,
    refused,
    relocate,
)


async def test_who_waits_says_why_and_until_when(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    for number in range(1, 5):
        await agents[0].register(vm(number))
    drain = (await relocate(lab, server_id="host-1")).operation
    found = await parts(lab, drain.operation_id)
    waiting = [part for part in found if part.phase == QUEUED]
    assert len(waiting) == 2
    for part in waiting:
        assert part.waits_for[0] == "2 of 2 moves from host-1"
        assert len(part.waits_for) == 3, "and to the destination, and over the link"
    under_way = [part.expected_end.ToMilliseconds() for part in found if part.phase != QUEUED]
    later = [part.expected_end.ToMilliseconds() for part in waiting]
    assert max(under_way) < min(later)
    whole = await get(lab, drain.operation_id)
    assert whole.expected_end.ToMilliseconds() == pytest.approx(max(later), abs=2_000)
    assert not (await lab.record(waiting[0].vm_id)).operation_id, "nothing is touched yet"


async def test_the_higher_priority_is_next_and_drains_take_turns(lab: Lab) -> None:
    agents = await hosts(lab, 4)
    for number in range(1, 4):
        await agents[0].register(vm(number))
        await agents[1].register(vm(number + 10))
    await agents[2].register(vm(30))
    first = (await relocate(lab, server_id="host-1", destination="host-4")).operation
    second = (await relocate(lab, server_id="host-2", destination="host-4")).operation
    urgent = (await relocate(lab, vm_id=vm_id(30), destination="host-4", priority=9)).operation
    assert [p.phase for p in await parts(lab, first.operation_id)].count(PREPARING) == 2
    assert [p.phase for p in await parts(lab, second.operation_id)].count(QUEUED) == 3
    order: list[str] = []
    revision = lab.revision
    async with Willing(agents):
        async for operation in _begun(lab, revision):
            if operation.operation_id == urgent.operation_id:
                order.append("urgent")
            else:
                order.append("first" if operation.parent == first.operation_id else "second")
            if len(order) == 5:
                break
        for whole in (first, second, urgent):
            assert (await ended(lab, whole.operation_id)).phase == SUCCEEDED
    assert order[0] == "urgent"
    assert order.index("second") < 3, "the second drain does not wait for the whole first"


async def _begun(lab: Lab, revision: int) -> AsyncIterator[operations.Operation]:
    """Moves that have their turn after the revision, in order."""
    request = directory_pb2.WatchRequest(from_revision=revision)
    watch = lab.operator.directory.Watch(request)
    seen: set[str] = set()
    async for event in watch:
        op = event.operation
        begun = event.HasField("operation") and op.vm_id and op.phase == PREPARING
        if begun and op.operation_id not in seen:
            seen.add(op.operation_id)
            yield op


async def test_a_queued_move_can_be_cancelled_and_a_whole_drain(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    for number in range(1, 5):
        await agents[0].register(vm(number))
    drain = (await relocate(lab, server_id="host-1")).operation
    cancel = operations.CancelOperationRequest(operation_id=drain.operation_id)
    async with Willing(agents):
        one = next(p for p in await parts(lab, drain.operation_id) if p.phase == QUEUED)
        alone = operations.CancelOperationRequest(operation_id=one.operation_id)
        assert (await lab.operator.operations.Cancel(alone)).phase == CANCELLED
        await lab.operator.operations.Cancel(cancel)
        done = await ended(lab, drain.operation_id)
    assert (done.phase, done.failure.reason) == (CANCELLED, "CANCELLED_BY_USER")
    left = await parts(lab, drain.operation_id)
    assert all(part.done for part in left)
    for part in left:
        owner = (await lab.record(part.vm_id)).location.server_id
        assert owner == ("host-2" if part.phase == SUCCEEDED else "host-1")


async def test_a_vm_that_goes_while_its_move_waits_ends_the_move(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    for number in range(1, 4):
        await agents[0].register(vm(number))
    drain = (await relocate(lab, server_id="host-1")).operation
    waiting = next(p for p in await parts(lab, drain.operation_id) if p.phase == QUEUED)
    await agents[0].deregister(waiting.vm_id, 1)
    async with Willing(agents):
        done = await ended(lab, drain.operation_id)
    assert (done.phase, done.failure.reason) == (FAILED, "SOME_FAILED")
    assert (await get(lab, waiting.operation_id)).failure.reason == "UNKNOWN_VM"


async def test_a_place_that_is_lost_while_waiting_is_chosen_anew(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    for number in range(1, 4):
        await agents[0].register(vm(number))
    drain = (await relocate(lab, server_id="host-1")).operation
    agents.append(await lab.agent("host-3"))
    request = inventory_pb2.CordonServerRequest(server_id="host-2", cordoned=True)
    await lab.operator.inventory.CordonServer(request)
    async with Willing(agents):
        assert (await ended(lab, drain.operation_id)).phase == SUCCEEDED
    where = [p.destination for p in await parts(lab, drain.operation_id)]
    assert sorted(where) == ["host-2", "host-2", "host-3"]


async def test_a_restart_goes_on_with_the_queue(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    for number in range(1, 6):
        await agents[0].register(vm(number))
    drain = (await relocate(lab, server_id="host-1")).operation
    await lab.restart()
    async with Willing(agents):
        assert (await ended(lab, drain.operation_id)).parts.succeeded == 5


@pytest.mark.parametrize("priority", [101, -101])
async def test_a_priority_beyond_its_range_is_refused(lab: Lab, priority: int) -> None:
    await hosts(lab, 2)
    assert await refused(lab, server_id="host-1", priority=priority) is Reason.INVALID_FIELD
