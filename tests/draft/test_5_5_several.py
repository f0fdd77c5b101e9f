"""5.5, VM Relocation of several VMs (A17): groups, whole vServers, places, and the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABORT, ABSENT, CLEAN, COPY, PREPARE, RUNNING, START, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import vm, vm_id

QUEUED, UNDER_WAY = operations.PHASE_QUEUED, operations.PHASE_UNDER_WAY
SUCCEEDED, FAILED = operations.PHASE_SUCCEEDED, operations.PHASE_FAILED
CANCELLED, PREPARING = operations.PHASE_CANCELLED, operations.PHASE_PREPARING
WEB = pb.RelocateRequest.GroupSubject(tenant="blue", group="web")
FRANKFURT = types.Coordinates(latitude=50.1, longitude=8.7)
PARIS = types.Coordinates(latitude=48.9, longitude=2.4)
TOKYO = types.Coordinates(latitude=35.7, longitude=139.7)


async def hosts(lab: Lab, count: int = 3, **facts: Any) -> list[Agent]:
    return [await lab.agent(f"host-{n}", **facts) for n in range(1, count + 1)]


async def relocate(lab: Lab, **request: Any) -> pb.RelocateResponse:
    return await lab.operator.signaling.Relocate(pb.RelocateRequest(**request))


async def refused(lab: Lab, **request: Any) -> Reason:
    with lab.nothing_changes():
        call = lab.operator.signaling.Relocate(pb.RelocateRequest(**request))
        return (await refusal_of(call)).reason


async def get(lab: Lab, operation_id: str) -> operations.Operation:
    request = operations.GetOperationRequest(operation_id=operation_id)
    return await lab.operator.operations.Get(request)


async def parts(lab: Lab, parent: str) -> list[operations.Operation]:
    request = operations.ListOperationsRequest(parent=parent)
    return list((await lab.operator.operations.List(request)).operations)


async def ended(lab: Lab, operation_id: str) -> operations.Operation:
    request = operations.WaitOperationRequest(operation_id=operation_id)
    request.timeout.FromSeconds(10)
    operation = await lab.operator.operations.Wait(request)
    assert operation.done, operations.Phase.Name(operation.phase)
    return operation


class Willing:
    """Does whatever is ordered, as soon as it is heard; remembers how much it did at a time."""

    def __init__(self, agents: list[Agent]) -> None:
        self._agents = agents
        self._done: set[tuple[str, str, int]] = set()
        self.most = 0

    async def __aenter__(self) -> Willing:
        self._tasks = [asyncio.create_task(self._obey(agent)) for agent in self._agents]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _orders(self, agent: Agent) -> list[session.WantedVm]:
        return [w for w in agent.vms.values() if w.move.step and self._key(w) not in self._done]

    def _key(self, wanted: session.WantedVm) -> tuple[str, str, int]:
        return wanted.move.operation_id, wanted.vm.vm_id, wanted.move.step

    async def _obey(self, agent: Agent) -> None:
        truth = {COPY: ABSENT, START: RUNNING, ABORT: RUNNING, CLEAN: ABSENT, PREPARE: ABSENT}
        while True:
            await agent.until(lambda: self._orders(agent))
            copying = [w for w in agent.vms.values() if w.move.step == COPY]
            self.most = max(self.most, len(copying))
            for wanted in self._orders(agent):
                self._done.add(self._key(wanted))
                step = wanted.move.step
                await agent.outcome(wanted, truth[step], policy_hash=wanted.profile_hash)


# ---- a whole vServer ----


async def test_a_drain_moves_everything_and_leaves_the_host_cordoned(lab: Lab) -> None:
    agents = await hosts(lab)
    for number in range(1, 6):
        await agents[0].register(vm(number))
    async with Willing(agents) as willing:
        started = (await relocate(lab, server_id="host-1")).operation
        assert (started.kind, started.subject, started.phase) == ("drain", "host-1", UNDER_WAY)
        drained = await ended(lab, started.operation_id)
    assert drained.phase == SUCCEEDED
    assert (drained.parts.total, drained.parts.ended, drained.parts.succeeded) == (5, 5, 5)
    places = [(await lab.record(vm_id(n))).location for n in range(1, 6)]
    assert {p.epoch for p in places} == {2}
    assert sorted(p.server_id for p in places).count("host-2") in (2, 3)
    assert (await lab.server("host-1")).server.cordoned
    assert (await lab.server("host-1")).server.vms == 0
    assert willing.most <= 2, "at most two leave a vServer at a time"
    for part in await parts(lab, started.operation_id):
        assert (part.phase, part.parent, part.source) == (SUCCEEDED, started.operation_id, "host-1")


async def test_a_cordoned_host_gets_no_vms_until_it_is_uncordoned(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    await agents[0].register(vm(1))

    async def cordon(cordoned: bool) -> types.Server:
        request = inventory_pb2.CordonServerRequest(server_id="host-2", cordoned=cordoned)
        return await lab.operator.inventory.CordonServer(request)

    assert (await cordon(True)).cordoned
    await agents[1].detach()
    await agents[1].attach()  # the agent's word does not change the operator's
    assert await refused(lab, vm_id=vm_id(1), destination="host-2") is Reason.CORDONED
    assert await refused(lab, vm_id=vm_id(1)) is Reason.NO_DESTINATION
    await lab.restart()
    assert await refused(lab, vm_id=vm_id(1), destination="host-2") is Reason.CORDONED
    await cordon(False)
    assert (await relocate(lab, vm_id=vm_id(1))).destination == "host-2"


async def test_all_are_moved_or_none_and_every_reason_is_told(lab: Lab) -> None:
    agents = await hosts(lab, 2)
    await agents[0].register(vm(1))
    await agents[0].register(vm(2), types.VM_STATE_PAUSED)
    await agents[0].register(vm(3, tenant=""))
    planned = await relocate(lab, server_id="host-1", plan_only=True)
    assert [(o.reason, o.vm_id) for o in planned.objections] == [
        ("NOT_RUNNING", vm_id(2)),
        ("UNASSIGNED", vm_id(3)),
    ]
    assert [m.vm_id for m in planned.moves] == [vm_id(1)]
    assert await refused(lab, server_id="host-1") is Reason.NOT_RUNNING


async def test_a_drain_of_an_empty_host_is_done_at_once(lab: Lab) -> None:
    await hosts(lab, 2)
    operation = (await relocate(lab, server_id="host-1")).operation
    assert (operation.phase, operation.done) == (SUCCEEDED, True)


async def test_a_plan_promises_no_place_twice(lab: Lab) -> None:
    """Three VMs of 512 MiB, and room for one on each of two hosts."""
    source = await lab.agent("host-1")
    for number in (2, 3):
        await lab.agent(f"host-{number}", capacity=types.Resources(vcpus=8, memory_mib=600))
    for number in (1, 2, 3):
        await source.register(vm(number))
    planned = await relocate(lab, server_id="host-1", plan_only=True)
    assert sorted(m.destination for m in planned.moves) == ["host-2", "host-3"]
    assert {o.reason for o in planned.objections} == {"NO_DESTINATION", "NO_CAPACITY"}
    await source.deregister(vm_id(3), 1)
    await relocate(lab, server_id="host-1")
    assert (await lab.server("host-2")).server.committed.memory_mib == 512
    other = await lab.agent("host-4")
    await other.register(vm(4))
    assert await refused(lab, vm_id=vm_id(4), destination="host-2") is Reason.NO_CAPACITY


# ---- a group ----


async def test_a_group_moves_to_one_host_but_for_those_that_are_there(lab: Lab) -> None:
    await lab.group()
    agents = await hosts(lab)
    await agents[0].register(vm(1, group="web"))
    await agents[1].register(vm(2, group="web"))
    await agents[1].register(vm(3))
    async with Willing(agents):
        started = (await relocate(lab, group=WEB, destination="host-1")).operation
        assert (started.kind, started.subject) == ("relocate-group", "blue/web")
        assert (await ended(lab, started.operation_id)).parts.total == 1
    where = [(await lab.record(vm_id(n))).location.server_id for n in (1, 2, 3)]
    assert where == ["host-1", "host-1", "host-2"]


async def test_members_are_kept_apart_within_a_plan(lab: Lab) -> None:
    group = types.Group(tenant="blue", name="web", anti_affinity=True)
    await lab.operator.inventory.PutGroup(inventory_pb2.PutGroupRequest(group=group))
    agents = await hosts(lab, 4)
    for number in (1, 2):
        await agents[0].register(vm(number, group="web"))
    assert await refused(lab, group=WEB, destination="host-2") is Reason.ANTI_AFFINITY
    planned = await relocate(lab, group=WEB, plan_only=True)
    assert len({m.destination for m in planned.moves}) == 2
    await agents[2].register(vm(3, group="web"))
    await agents[3].register(vm(4, group="web"))
    assert await refused(lab, server_id="host-1") is Reason.NO_DESTINATION


@pytest.mark.parametrize(
    "request_", [{"group": WEB}, {"server_id": "nowhere"}], ids=["group", "server"]
)
async def test_what_is_unknown_is_refused(lab: Lab, request_: dict[str, Any]) -> None:
    assert await refused(lab, **request_) in (Reason.UNKNOWN_GROUP, Reason.UNKNOWN_SERVER)


# ---- near to a place ----


@pytest.mark.parametrize(
    ("near", "chosen"),
    [("fra", "host-2"), ("host-3", "host-3"), ("36.0,140.0", "host-3"), ("49,2.4", "host-4")],
)
async def test_the_nearest_host_that_fits_is_chosen(lab: Lab, near: str, chosen: str) -> None:
    places = {2: ("fra", FRANKFURT), 3: ("tyo", TOKYO), 4: ("", PARIS)}
    source = await lab.agent("host-1", site="home")
    for number, (site, at) in places.items():
        await lab.agent(f"host-{number}", site=site, coordinates=at)
    await source.register(vm(1))
    planned = await relocate(lab, vm_id=vm_id(1), near=near, plan_only=True)
    assert planned.destination == chosen


async def test_where_the_nearest_has_no_room_the_next_is_chosen(lab: Lab) -> None:
    source = await lab.agent("host-1", coordinates=TOKYO)
    small = types.Resources(vcpus=1, memory_mib=64)
    await lab.agent("host-2", site="fra", coordinates=FRANKFURT, capacity=small)
    await lab.agent("host-3", coordinates=PARIS)
    await source.register(vm(1))

    async def planned(near: str) -> pb.RelocateResponse:
        return await relocate(lab, vm_id=vm_id(1), near=near, plan_only=True)

    assert (await planned("fra")).destination == "host-3"
    assert [o.reason for o in (await planned("host-1")).objections] == ["SAME_SERVER"]
    assert await refused(lab, vm_id=vm_id(1), near="atlantis") is Reason.UNKNOWN_PLACE
    for nonsense in ("91,0", "nan,nan", "host-2, host-3", "x" * 300):
        assert await refused(lab, vm_id=vm_id(1), near=nonsense) in (
            Reason.UNKNOWN_PLACE,
            Reason.INVALID_FIELD,
        )
    both = await refused(lab, vm_id=vm_id(1), near="fra", destination="host-2")
    assert both is Reason.INVALID_FIELD


# ---- the queue ----


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


# ---- tenants ----


async def test_a_tenant_moves_its_own_groups_and_nothing_else(lab: Lab) -> None:
    await lab.group()
    agents = await hosts(lab, 2)
    await agents[0].register(vm(1, group="web"))
    blue, red = lab.client("tenant/blue"), lab.client("tenant/red")
    with lab.nothing_changes():
        for client, request in (
            (red, pb.RelocateRequest(group=WEB)),
            (blue, pb.RelocateRequest(server_id="host-1")),
            (blue, pb.RelocateRequest(group=WEB, priority=1)),
        ):
            assert (await refusal_of(client.signaling.Relocate(request))).reason is Reason.FORBIDDEN
    async with Willing(agents):
        started = (await blue.signaling.Relocate(pb.RelocateRequest(group=WEB))).operation
        assert (await ended(lab, started.operation_id)).phase == SUCCEEDED
    get_it = operations.GetOperationRequest(operation_id=started.operation_id)
    assert (await blue.operations.Get(get_it)).parts.succeeded == 1
    unseen = await refusal_of(red.operations.Get(get_it))
    assert unseen.reason is Reason.UNKNOWN_OPERATION


async def test_a_tenant_hears_nothing_of_what_others_have(lab: Lab) -> None:
    await lab.group()
    source = await lab.agent("host-1")
    await lab.agent("host-2", capacity=types.Resources(vcpus=1, memory_mib=64))
    await source.register(vm(1, group="web"), types.VM_STATE_SHUT_OFF)
    await source.register(vm(2, group="web"))
    call = lab.client("tenant/blue").signaling.Relocate(pb.RelocateRequest(group=WEB))
    refusal = await refusal_of(call)
    assert "host-2" not in refusal.message and "64" not in refusal.message
    assert not refusal.evidence
