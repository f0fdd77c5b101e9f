"""5.6, VM Replication (A18): a copy near the tenant while the original runs."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import COPY, RUNNING
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import vm, vm_id

ROOT = types.Disk(path="/images/root.qcow2", format="qcow2", bytes=1 << 30, used_bytes=1 << 29)
PARIS = types.Coordinates(latitude=48.86, longitude=2.35)
LYON = types.Coordinates(latitude=45.76, longitude=4.84)
OSLO = types.Coordinates(latitude=59.91, longitude=10.75)


@pytest.fixture
async def move(lab: Lab) -> Move:
    """VM 1 in Oslo, with a disk; hosts in Lyon and Paris."""
    source = await lab.agent("host-1", site="osl", coordinates=OSLO)
    destination = await lab.agent("host-2", site="par", coordinates=PARIS)
    await lab.agent("host-3", site="lyo", coordinates=LYON)
    await source.register(vm(1))
    status = pb.VmStatus(vm_id=VM, epoch=1, state=types.VM_STATE_RUNNING)
    status.disks.disks.append(ROOT)
    await source.client.signaling.Report(pb.ReportRequest(vms=[status]))
    return Move(lab, source, destination)


async def replicated(move: Move, near: str) -> operations.Operation:
    """At the tenant's request its vServer asks."""
    request = pb.ReplicateRequest(vm_id=VM, near=near)
    reply = await move.source.client.signaling.Replicate(request)
    move.id = reply.operation.operation_id
    return reply.operation


@pytest.mark.parametrize("near", ["par", "host-2", "49.0,2.5"])
async def test_the_vserver_nearest_to_the_tenant_is_picked(move: Move, near: str) -> None:
    operation = await replicated(move, near)
    assert (operation.kind, operation.source, operation.destination) == (
        *("replicate", "host-1", "host-2"),
    )
    assert operation.requested_by == "vserver/host-1"


async def test_the_nearest_that_can_take_it_is_picked_before_one_that_cannot(move: Move) -> None:
    await move.lab.operator.inventory.CordonServer(cordon("host-2"))
    assert (await replicated(move, "par")).destination == "host-3"


async def test_the_original_runs_until_its_copy_is_whole_disks_and_all(move: Move) -> None:
    operation = await replicated(move, "par")
    assert list(operation.disks) == [ROOT]
    assert list((await move.prepare()).move.disks) == [ROOT]
    assert (await move.source.until_ordered(VM, COPY)).owned
    assert await move.owner() == ("host-1", 1), "a copy never claims the identity before"
    await move.copy()
    await move.start()
    await move.clean()
    done = await move.done()
    assert [p.phase for p in done.phases] == list(PHASES)
    assert await move.owner() == ("host-2", 2)


async def test_what_cannot_be_copied_stays_and_is_told_why(move: Move) -> None:
    await replicated(move, "par")
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="COPY_FAILED", message="no route to host")
    await move.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await move.go_back()
    done = await move.done()
    assert (done.kind, done.failure.reason) == ("replicate", "COPY_FAILED")
    assert await move.owner() == ("host-1", 1)


async def test_a_plan_says_where_and_how_long_and_every_reason_against(move: Move) -> None:
    request = pb.ReplicateRequest(vm_id=VM, near="par", plan_only=True)
    with move.lab.nothing_changes():
        planned = await move.lab.operator.signaling.Replicate(request)
    assert (planned.destination, list(planned.moves[0].disks)) == ("host-2", [ROOT])
    assert planned.moves[0].predicted.disk_bytes == ROOT.used_bytes
    for name in ("host-2", "host-3"):
        await move.lab.operator.inventory.CordonServer(cordon(name))
    planned = await move.lab.operator.signaling.Replicate(request)
    assert {o.reason for o in planned.objections} == {"NO_DESTINATION", "CORDONED"}


async def test_who_is_nearest_already_needs_no_copy(move: Move) -> None:
    refusal = await refusal_of(replicated(move, "osl"))
    assert refusal.reason is Reason.SAME_SERVER


async def test_a_vserver_asks_for_the_vms_that_it_owns(move: Move) -> None:
    request = pb.ReplicateRequest(vm_id=VM, near="par")
    refusal = await refusal_of(move.destination.client.signaling.Replicate(request))
    assert refusal.reason is Reason.NOT_OWNER
    unknown = pb.ReplicateRequest(vm_id=vm_id(7), near="par")
    refusal = await refusal_of(move.source.client.signaling.Replicate(unknown))
    assert refusal.reason is Reason.UNKNOWN_VM


async def test_where_the_tenant_is_must_be_said(move: Move) -> None:
    for near, reason in (("", Reason.INVALID_FIELD), ("nowhere", Reason.UNKNOWN_PLACE)):
        assert (await refusal_of(replicated(move, near))).reason is reason


def cordon(server_id: str) -> inventory_pb2.CordonServerRequest:
    return inventory_pb2.CordonServerRequest(server_id=server_id, cordoned=True)
