"""5.5, VM Relocation of several VMs (A17): groups, whole vServers, places, and tenants."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import vm, vm_id
from tests.support.several import (
    SUCCEEDED,
    UNDER_WAY,
    Willing,
    ended,
    hosts,
    parts,
    refused,
    relocate,
)

WEB = pb.RelocateRequest.GroupSubject(tenant="blue", group="web")
FRANKFURT = types.Coordinates(latitude=50.1, longitude=8.7)
PARIS = types.Coordinates(latitude=48.9, longitude=2.4)
TOKYO = types.Coordinates(latitude=35.7, longitude=139.7)


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
