"""5.5, VM Relocation (A22, A24): copied disks, and for how long a guest may stand still."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, HELD, PREPARE, RUNNING, SHUT_OFF, START
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import vm, vm_id

GIB = 1 << 30
ROOT = types.Disk(path="/images/root.qcow2", format="qcow2", bytes=4 * GIB, used_bytes=GIB)
OWN = types.Disk(path="root.qcow2", format="qcow2", bytes=GIB, used_bytes=GIB // 2, local=True)
BUDGET = operations.Budget(downtime_ms=200, if_over=operations.IF_OVER_REFUSE, deadline_ms=60_000)
COLD = operations.MOVE_KIND_COLD


async def says(move: Move, *disks: types.Disk) -> None:
    """The source's report: so much is on the VM's own disks."""
    status = pb.VmStatus(vm_id=VM, epoch=1, state=types.VM_STATE_RUNNING)
    status.disks.disks.extend(disks)
    await move.source.client.signaling.Report(pb.ReportRequest(vms=[status]))


async def asked(move: Move, **how: object) -> operations.Operation:
    request = pb.RelocateRequest(vm_id=VM, destination="host-2", **how)
    reply = await move.lab.operator.signaling.Relocate(request)
    move.id = reply.operation.operation_id
    return reply.operation


async def plan(move: Move, **how: object) -> pb.RelocateResponse:
    request = pb.RelocateRequest(vm_id=VM, destination="host-2", plan_only=True, **how)
    return await move.lab.operator.signaling.Relocate(request)


async def test_a_plan_says_what_is_copied_and_how_long_that_takes(move: Move) -> None:
    await says(move, ROOT)
    without = (await plan(move)).moves[0]
    (planned,) = (await plan(move, copy_disks=True)).moves
    assert not without.disks and not without.predicted.disk_bytes
    assert list(planned.disks) == [ROOT]
    assert planned.predicted.disk_bytes == GIB
    more_ms = planned.predicted.total_ms - without.predicted.total_ms
    assert more_ms == pytest.approx(GIB / planned.predicted.bytes_per_second * 1000)


async def test_both_hosts_are_told_which_disks_and_only_the_source_drops_them(move: Move) -> None:
    await says(move, ROOT)
    operation = await asked(move, copy_disks=True, budget=BUDGET)
    assert (list(operation.disks), operation.budget) == ([ROOT], BUDGET)
    assert list((await move.prepare()).move.disks) == [ROOT]
    wanted = await move.source.until_ordered(VM, COPY)
    assert (list(wanted.move.disks), wanted.move.budget) == ([ROOT], BUDGET)
    await move.lab.restart()
    wanted = await move.source.until_ordered(VM, COPY)
    assert (list(wanted.move.disks), wanted.move.budget) == ([ROOT], BUDGET), "it is durable"
    figures = {"bytes": 2 * GIB, "disk_bytes": GIB, "slowed_percent": 30, "suspended": True}
    await move.source.outcome(wanted, ABSENT, **figures)
    assert not (await move.start()).move.disks
    assert list((await move.clean()).move.disks) == [ROOT], "it lives with its copies now"
    receipt = (await move.done()).receipt
    assert {name: getattr(receipt, name) for name in figures} == figures


async def test_a_move_that_goes_back_drops_no_disk(move: Move) -> None:
    await says(move, ROOT)
    await asked(move, copy_disks=True)
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="COPY_FAILED", message="no route to host")
    await move.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await move.stay()
    clean = await move.destination.until_ordered(VM, CLEAN)
    assert not clean.move.disks, "what it has made it knows; nobody else does"
    await move.destination.outcome(clean, ABSENT)
    done = await move.done()
    assert done.phase == operations.PHASE_FAILED
    orders = [m.vm.move for m in move.source.heard if m.vm.move.step == session.MOVE_STEP_CLEAN]
    assert not orders, "the only good copy is the source's"


async def test_disks_that_are_known_to_be_local_are_copied_without_being_asked_for(
    move: Move,
) -> None:
    await says(move, ROOT, OWN)
    operation = await asked(move)
    assert list(operation.disks) == [OWN]
    assert list((await move.destination.until_ordered(VM, PREPARE)).move.disks) == [OWN]


async def test_what_stands_against_copying_disks_is_told_before(move: Move) -> None:
    (unknown,) = (await plan(move, copy_disks=True)).objections
    assert (unknown.reason, unknown.vm_id) == (Reason.DISKS_STAY.name, VM)
    await says(move, types.Disk(path="/images/a.raw", format="raw"))
    assert "how big" in (await plan(move, copy_disks=True)).objections[0].message
    await says(move, types.Disk(path="root.raw", format="raw", local=True))
    refusal = await refusal_of(asked(move, kind=COLD))
    assert refusal.reason is Reason.DISKS_STAY


async def off(move: Move, *disks: types.Disk) -> None:
    """The source's report: the VM is off, and so much is on its disks."""
    await move.source.register(vm(1), types.VM_STATE_SHUT_OFF)
    status = pb.VmStatus(vm_id=VM, epoch=1, state=types.VM_STATE_SHUT_OFF)
    status.disks.disks.extend(disks)
    await move.source.client.signaling.Report(pb.ReportRequest(vms=[status]))


async def test_the_disks_of_a_vm_that_is_off_are_written_to_where_its_destination_says(
    move: Move,
) -> None:
    await off(move, OWN)
    (planned,) = (await plan(move)).moves
    assert (planned.kind, list(planned.disks)) == (COLD, [OWN])
    assert planned.predicted.disk_bytes == OWN.used_bytes
    travel_ms = OWN.used_bytes / planned.predicted.bytes_per_second * 1000
    assert planned.predicted.total_ms > travel_ms and not planned.predicted.downtime_ms
    await asked(move)
    wanted = await move.destination.until_ordered(VM, PREPARE)
    assert list(wanted.move.disks) == [OWN]
    await move.destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash, port=10_809)
    wanted = await move.source.until_ordered(VM, COPY)
    assert (list(wanted.move.disks), wanted.move.port) == ([OWN], 10_809)
    await move.lab.restart()
    wanted = await move.source.until_ordered(VM, COPY)
    assert wanted.move.port == 10_809, "it is durable"
    figures = {"bytes": OWN.used_bytes, "disk_bytes": OWN.used_bytes}
    await move.source.outcome(wanted, ABSENT, **figures)
    wanted = await move.destination.until_ordered(VM, START)
    assert not wanted.move.port and not wanted.move.disks
    await move.destination.outcome(wanted, SHUT_OFF)
    assert list((await move.clean()).move.disks) == [OWN], "only now are there two good copies"
    receipt = (await move.done()).receipt
    assert {name: getattr(receipt, name) for name in figures} == figures


async def test_a_vm_that_would_be_shut_down_is_off_for_as_long_as_its_disks_travel(
    move: Move,
) -> None:
    await says(move, OWN)
    (planned,) = (await plan(move, kind=COLD)).moves
    assert planned.kind == operations.MOVE_KIND_RESTART
    assert planned.predicted.downtime_ms == planned.predicted.total_ms > 0


async def test_both_hosts_must_be_able_to_copy_disks_of_a_vm_that_is_off(lab: Lab) -> None:
    """An older agent would take it from its disks."""
    move = await Move.ready(lab, carries_disks=False)
    await off(move, OWN)
    (against,) = (await plan(move)).objections
    assert (against.reason, against.server_id) == (Reason.INCOMPATIBLE_HOST.name, "host-2")
    assert (await refusal_of(asked(move))).reason is Reason.INCOMPATIBLE_HOST
    await move.source.register(vm(1))
    await says(move, OWN)
    assert not (await plan(move)).objections, "while it runs they need not"


async def test_of_a_start_that_fails_the_source_keeps_its_disk(move: Move) -> None:
    await says(move, OWN)
    await asked(move, kind=COLD)
    wanted = await move.destination.until_ordered(VM, PREPARE)
    await move.destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash, port=10_809)
    await move.source.outcome(await move.source.until_ordered(VM, COPY), ABSENT)
    wanted = await move.destination.until_ordered(VM, START)
    failure = operations.Failure(reason="WOULD_NOT_START", message="no boot device")
    await move.destination.outcome(wanted, SHUT_OFF, ok=False, failure=failure)
    assert not (await move.clean()).move.disks


async def test_a_vm_without_disks_has_none_to_copy(move: Move) -> None:
    await says(move)
    planned = await plan(move, copy_disks=True)
    assert not planned.objections and not planned.moves[0].disks


@pytest.mark.parametrize("path", ["", "a/b", "/a/../b", "..", "/a\nb", "/a/", "/" + "a" * 1024])
async def test_a_disk_that_could_be_anything_is_not_copied(move: Move, path: str) -> None:
    await says(move, types.Disk(path=path, format="raw", bytes=GIB))
    (against,) = (await plan(move, copy_disks=True)).objections
    assert (against.reason, "no path" in against.message) == (Reason.DISKS_STAY.name, True)


async def test_a_host_whose_guest_has_a_strange_disk_is_heard(move: Move) -> None:
    await says(move, types.Disk(path="/a.vmdk", format="vmdk", bytes=GIB))
    assert "neither raw" in (await plan(move, copy_disks=True)).objections[0].message
    assert not (await plan(move)).objections


async def test_who_says_nothing_has_the_budget_that_users_do_not_notice(move: Move) -> None:
    budget = (await asked(move)).budget
    assert (budget.downtime_ms, budget.deadline_ms) == (400, 0)
    assert budget.if_over == operations.IF_OVER_SLOW


async def test_a_guest_that_cannot_be_kept_within_its_budget_stays_for_that_reason(
    move: Move,
) -> None:
    await asked(move, budget=BUDGET)
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    failure = operations.Failure(reason="DOWNTIME_NOT_KEPT", message="its guest writes too much")
    await move.source.outcome(wanted, RUNNING, ok=False, failure=failure)
    await move.go_back()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "DOWNTIME_NOT_KEPT")
    assert await move.owner() == ("host-1", 1)


async def test_a_budget_of_ten_minutes_is_the_longest(move: Move) -> None:
    refusal = await refusal_of(asked(move, budget=operations.Budget(downtime_ms=600_001)))
    assert refusal.reason is Reason.INVALID_FIELD


async def test_a_drain_takes_disks_and_budget_along_for_each(lab: Lab) -> None:
    move = await Move.ready(lab)
    await says(move, ROOT)
    request = pb.RelocateRequest(server_id="host-1", copy_disks=True, budget=BUDGET)
    whole = (await lab.operator.signaling.Relocate(request)).operation
    assert whole.copy_disks and whole.budget == BUDGET
    parts = operations.ListOperationsRequest(parent=whole.operation_id)
    (part,) = (await lab.operator.operations.List(parts)).operations
    assert (part.vm_id, list(part.disks), part.budget) == (vm_id(1), [ROOT], BUDGET)


async def test_what_was_to_start_and_is_not_there_keeps_its_disks(move: Move) -> None:
    """It may have run at the destination, and be off since: with what its guest wrote there."""
    await says(move, ROOT)
    await asked(move, copy_disks=True)
    wanted = await move.destination.until_ordered(VM, PREPARE)
    await move.destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash, gated=True)
    wanted = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(wanted, HELD, policy_hash=wanted.profile_hash)
    wanted = await move.destination.until_ordered(VM, START)
    await move.destination.outcome(wanted, ABSENT, ok=False)
    await move.until(operations.PHASE_RETURNING)
    assert not (await move.destination.until_ordered(VM, CLEAN)).move.disks
