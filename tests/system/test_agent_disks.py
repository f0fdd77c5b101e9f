"""Moves with copied disks, and with a budget, between real agents ordered by a real vCenter."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.model.disk import Disk
from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from tests.system.agents import OPERATOR, VM_ID, Host, World, a_vm, until, world
from vserver.hypervisor.memory_disks import MemoryFile

VM = VM_ID.format(1)
SUCCEEDED, FAILED = operations.PHASE_SUCCEEDED, operations.PHASE_FAILED
ROOT = Disk("/images/root.qcow2", "qcow2", 64 << 20)
WRITTEN = MemoryFile(64 << 20, "written")
REFUSE, SLOW = operations.IF_OVER_REFUSE, operations.IF_OVER_SLOW
SUSPEND = operations.IF_OVER_SUSPEND


async def two_hosts(
    w: World, *, with_disk: bool = True, state: VmState = VmState.RUNNING
) -> tuple[Host, Host]:
    a, b = await w.host(), await w.host()
    if with_disk:
        a.hypervisor.disks.files[ROOT.path] = WRITTEN
    started = state is VmState.RUNNING
    a.hypervisor.create(a_vm(), disks=(ROOT,) if with_disk else (), started=started)
    await until(lambda: w.state() is state)
    await until_planned(w, b)
    return a, b


async def until_planned(w: World, to: Host) -> None:
    """The VM's host has said what there is to copy."""
    request = signaling.RelocateRequest(
        vm_id=VM, destination=to.name, copy_disks=True, plan_only=True
    )
    async with asyncio.timeout(30):
        while (await w.signaling.Relocate(request, metadata=OPERATOR)).objections:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def moved(w: World, to: Host, **how: Any) -> operations.Operation:
    request = signaling.RelocateRequest(vm_id=VM, destination=to.name, **how)
    reply = await w.signaling.Relocate(request, metadata=OPERATOR)
    return await w.done(reply.operation)


async def test_a_disk_goes_along_and_is_nowhere_twice() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        done = await moved(w, b, copy_disks=True)
        assert done.phase == SUCCEEDED, done
        assert (done.receipt.disk_bytes, w.running_on()) == (ROOT.bytes, [b.name])
        assert b.hypervisor.disks.files == {ROOT.path: WRITTEN}
        assert not a.hypervisor.disks.files
        await until_planned(w, a)
        done = await moved(w, a, copy_disks=True)
        assert done.phase == SUCCEEDED, done
        assert a.hypervisor.disks.files == {ROOT.path: WRITTEN}
        assert not b.hypervisor.disks.files


async def test_the_disk_of_a_vm_that_is_off_goes_along() -> None:
    async with world() as w:
        a, b = await two_hosts(w, state=VmState.SHUT_OFF)
        done = await moved(w, b, copy_disks=True)
        assert (done.phase, done.move_kind) == (SUCCEEDED, operations.MOVE_KIND_COLD), done
        assert (done.receipt.disk_bytes, w.owner()) == (ROOT.bytes, b.name)
        assert b.hypervisor.disks.files == {ROOT.path: WRITTEN} and not a.hypervisor.disks.files
        assert not b.hypervisor.taking and not b.hypervisor.disks.made
        b.hypervisor.start(VM)
        await until(lambda: w.state() is VmState.RUNNING)
        await until_planned(w, a)
        done = await moved(w, a, kind=operations.MOVE_KIND_COLD, copy_disks=True)
        assert (done.phase, done.move_kind) == (SUCCEEDED, operations.MOVE_KIND_RESTART), done
        assert a.hypervisor.disks.files == {ROOT.path: WRITTEN} and not b.hypervisor.disks.files
        assert w.running_on() == [a.name]


async def test_a_vm_whose_disk_cannot_be_sent_runs_again_where_it_was() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.fail_next_migration("no route to host")
        done = await moved(w, b, kind=operations.MOVE_KIND_COLD, copy_disks=True)
        assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED"), done
        assert w.running_on() == [a.name]
        assert a.hypervisor.disks.files == {ROOT.path: WRITTEN} and not b.hypervisor.disks.files
        assert not b.hypervisor.taking and VM not in b.hypervisor.vms


async def test_a_copy_of_what_is_off_is_cancelled_and_leaves_nothing() -> None:
    async with world(copy_seconds=30.0) as w:
        a, b = await two_hosts(w, state=VmState.SHUT_OFF)
        request = signaling.RelocateRequest(vm_id=VM, destination=b.name, copy_disks=True)
        operation = (await w.signaling.Relocate(request, metadata=OPERATOR)).operation
        await w.reached(operation, operations.PHASE_COPYING)
        cancel = operations.CancelOperationRequest(operation_id=operation.operation_id)
        await w.operations.Cancel(cancel, metadata=OPERATOR)
        done = await w.done(operation)
        assert done.phase == operations.PHASE_CANCELLED, done
        assert VM in a.hypervisor.vms and VM not in b.hypervisor.vms
        assert a.hypervisor.disks.files == {ROOT.path: WRITTEN} and not b.hypervisor.disks.files


@pytest.mark.parametrize("killed", [0, 1], ids=["source", "destination"])
async def test_agents_that_restart_while_what_is_off_is_copied_leave_one_good_disk(
    killed: int,
) -> None:
    async with world(copy_seconds=0.5) as w:
        hosts = await two_hosts(w, state=VmState.SHUT_OFF)
        to = hosts[1]
        request = signaling.RelocateRequest(vm_id=VM, destination=to.name, copy_disks=True)
        operation = (await w.signaling.Relocate(request, metadata=OPERATOR)).operation
        await w.reached(operation, operations.PHASE_COPYING)
        await hosts[killed].kill()
        hosts[killed].boot(w.target)
        done = await w.done(operation)
        assert done.phase in (SUCCEEDED, FAILED), done
        (home,) = [h for h in hosts if VM in h.hypervisor.vms]
        assert w.owner() == home.name
        assert home.hypervisor.disks.files == {ROOT.path: WRITTEN}
        assert [h.hypervisor.disks.files for h in hosts if h is not home] == [{}]


async def test_without_being_copied_it_is_missing_there_and_the_vm_stays() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        done = await moved(w, b)
        assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED"), done
        assert "cannot access storage file" in done.failure.message
        assert w.running_on() == [a.name]


async def test_a_copy_that_breaks_off_leaves_no_file_and_the_only_good_one() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.fail_next_migration("no route to host")
        done = await moved(w, b, copy_disks=True)
        assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED"), done
        assert a.hypervisor.disks.files == {ROOT.path: WRITTEN}
        assert not b.hypervisor.disks.files
        assert w.running_on() == [a.name]


async def test_what_is_there_already_is_no_copys_place() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        b.hypervisor.disks.files[ROOT.path] = other = MemoryFile(1, "another's")
        done = await moved(w, b, copy_disks=True)
        assert done.phase == FAILED and "is there already" in done.failure.message, done
        assert b.hypervisor.disks.files == {ROOT.path: other}
        assert w.running_on() == [a.name]


async def test_an_agent_that_restarts_during_the_copy_leaves_nothing_either() -> None:
    async with world(copy_seconds=0.5) as w:
        a, b = await two_hosts(w)
        request = signaling.RelocateRequest(vm_id=VM, destination=b.name, copy_disks=True)
        operation = (await w.signaling.Relocate(request, metadata=OPERATOR)).operation
        await w.reached(operation, operations.PHASE_COPYING)
        await b.kill()
        b.boot(w.target)
        done = await w.done(operation)
        assert done.phase in (SUCCEEDED, FAILED), done
        (home,) = w.running_on()
        files = {h.name: h.hypervisor.disks.files for h in (a, b)}
        assert files.pop(home) == {ROOT.path: WRITTEN}
        assert files == {({a.name, b.name} - {home}).pop(): {}}


async def test_what_is_done_with_a_guest_that_writes_too_much_is_the_operators_choice() -> None:
    async with world() as w:
        a, b = await two_hosts(w, with_disk=False)
        a.hypervisor.vms[VM].writes = 1e12  # all of its memory, again and again
        refused = await moved(w, b, budget=_budget(REFUSE))
        assert (refused.phase, refused.failure.reason) == (FAILED, "DOWNTIME_NOT_KEPT"), refused
        assert (w.running_on(), w.owner()) == ([a.name], a.name)
        suspended = await moved(w, b, budget=_budget(SUSPEND))
        assert suspended.phase == SUCCEEDED and suspended.receipt.suspended, suspended
        assert suspended.receipt.downtime_ms > 50
        b.hypervisor.vms[VM].writes = 1e9
        slowed = await moved(w, a, budget=_budget(SLOW))
        assert slowed.phase == SUCCEEDED and not slowed.receipt.suspended, slowed
        assert slowed.receipt.slowed_percent > 0
        assert slowed.receipt.downtime_ms <= 50 + 20, "its budget, and the hand-over"


async def test_after_its_deadline_a_guest_stays() -> None:
    async with world() as w:
        a, b = await two_hosts(w, with_disk=False)
        a.hypervisor.vms[VM].writes = 1e12
        budget = operations.Budget(deadline_ms=300)
        done = await moved(w, b, budget=budget)
        assert (done.phase, done.failure.reason) == (FAILED, "DOWNTIME_NOT_KEPT"), done
        assert "within 0.3 s" in done.failure.message
        assert w.running_on() == [a.name]


def _budget(if_over: int) -> operations.Budget:
    return operations.Budget(downtime_ms=50, if_over=if_over)  # type: ignore[arg-type]
