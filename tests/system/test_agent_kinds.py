"""Kinds of moves (A22) between real agents, ordered by a real vCenter over gRPC."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2 as operations
from tests.support.lab import QuickClock
from tests.system.agents import OPERATOR, VM_ID, Host, World, a_vm, until, world

VM = VM_ID.format(1)
SUCCEEDED, FAILED = operations.PHASE_SUCCEEDED, operations.PHASE_FAILED
SUSPEND, COLD = operations.MOVE_KIND_SUSPEND, operations.MOVE_KIND_COLD
RESTART = operations.MOVE_KIND_RESTART


async def two_hosts(w: World, state: VmState = VmState.RUNNING) -> tuple[Host, Host]:
    a, b = await w.host(), await w.host()
    a.hypervisor.create(a_vm(), started=state is VmState.RUNNING)
    await until(lambda: w.state() is state)
    return a, b


async def moved(w: World, to: Host, kind: int = operations.MOVE_KIND_LIVE) -> operations.Operation:
    return await w.done(await w.relocate(1, to, kind))


def states_of(host: Host) -> list[VmState]:
    """Every state that its hypervisor has the VM in from now on."""
    seen: list[VmState] = []
    changed: Callable[[str], None] = host.hypervisor.changed

    def noted(vm_id: str) -> None:
        if (vm := host.hypervisor.vms.get(vm_id)) is not None:
            seen.append(vm.state)
        changed(vm_id)

    host.hypervisor.changed = noted  # type: ignore[method-assign]
    return seen


async def test_a_vm_that_is_off_moves_and_stays_off_whatever_is_asked_for() -> None:
    async with world() as w:
        a, b = await two_hosts(w, VmState.SHUT_OFF)
        seen = states_of(b)
        done = await moved(w, b)
        assert (done.phase, done.move_kind) == (SUCCEEDED, COLD), done
        assert (w.owner(), w.epoch(), w.state()) == (b.name, 2, VmState.SHUT_OFF)
        assert set(seen) == {VmState.SHUT_OFF} and VM not in a.hypervisor.vms
        assert done.receipt.policy_hash_after
        await until(lambda: not b.fabric.host(b.vtep).ports)
        b.hypervisor.start(VM)
        await until(lambda: len(b.open_ports()) == 1)


async def test_a_vm_that_runs_is_shut_down_for_a_cold_move_and_started_afterwards() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        here = states_of(a)
        done = await moved(w, b, COLD)
        assert (done.phase, done.move_kind) == (SUCCEEDED, RESTART), done
        assert VmState.SHUT_OFF in here and VM not in a.hypervisor.vms
        assert w.running_on() == [b.name] and len(b.open_ports()) == 1
        assert (w.owner(), w.epoch(), w.state()) == (b.name, 2, VmState.RUNNING)
        receipt = done.receipt
        assert receipt.policy_hash_before == receipt.policy_hash_after != ""


async def test_a_suspended_guest_stands_still_until_it_runs_at_the_destination() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        here = states_of(a)
        done = await moved(w, b, SUSPEND)
        assert (done.phase, done.move_kind) == (SUCCEEDED, SUSPEND), done
        assert set(here) == {VmState.PAUSED}
        assert w.running_on() == [b.name] and len(b.open_ports()) == 1


@pytest.mark.parametrize("kind", [SUSPEND, COLD], ids=["suspend", "restart"])
async def test_what_cannot_be_copied_runs_on_where_it_was(kind: int) -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.fail_next_migration("no route to host")
        done = await moved(w, b, kind)
        assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED"), done
        assert (w.owner(), w.epoch()) == (a.name, 1) and w.running_on() == [a.name]
        assert VM not in b.hypervisor.vms
        await until(lambda: len(a.open_ports()) == 1)
        await until(lambda: w.state() is VmState.RUNNING)


async def test_a_guest_that_will_not_shut_down_is_not_moved() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        await a.stop()
        a.clock = QuickClock()  # it waits a minute for the guest
        a.boot(w.target)
        await w.attached(a)
        there = states_of(b)
        a.hypervisor.deaf.add(VM)
        done = await moved(w, b, COLD)
        assert (done.phase, done.failure.reason) == (FAILED, "WOULD_NOT_STOP"), done
        assert w.running_on() == [a.name] and w.owner() == a.name and not there


async def test_what_was_moved_and_would_not_start_is_off_at_the_destination() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        b.hypervisor.fail_next_start("cannot access storage file")
        done = await moved(w, b, COLD)
        assert (done.phase, done.failure.reason) == (FAILED, "WOULD_NOT_START"), done
        assert "cannot access storage file" in done.failure.message
        assert (w.owner(), w.epoch(), w.state()) == (b.name, 2, VmState.SHUT_OFF)
        assert not w.running_on() and VM not in a.hypervisor.vms
        assert b.hypervisor.vms[VM].state is VmState.SHUT_OFF


async def test_what_would_not_start_again_at_the_source_is_told_with_the_failure() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.fail_next_migration("no route to host")
        a.hypervisor.fail_next_start("cannot access storage file")
        done = await moved(w, b, COLD)
        assert (done.phase, done.failure.reason) == (FAILED, "COPY_FAILED"), done
        assert "would not start again: memory: cannot access" in done.failure.message
        assert w.owner() == a.name and not w.running_on()
        await until(lambda: w.state() is VmState.SHUT_OFF)


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_an_agent_that_restarts_while_the_guest_shuts_down_goes_on(way: str) -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.deaf.add(VM)
        operation = await w.relocate(1, b, COLD)
        await w.reached(operation, operations.PHASE_COPYING)
        await (a.stop() if way == "stop" else a.kill())
        a.boot(w.target)
        await w.attached(a)
        a.hypervisor.deaf.clear()
        done = await w.done(operation)
        assert done.phase == SUCCEEDED, done
        assert w.running_on() == [b.name]


async def test_a_shutdown_can_be_cancelled() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.deaf.add(VM)
        operation = await w.relocate(1, b, COLD)
        await w.reached(operation, operations.PHASE_COPYING)
        request = operations.CancelOperationRequest(operation_id=operation.operation_id)
        await w.operations.Cancel(request, metadata=OPERATOR)
        done = await w.done(operation)
        assert done.phase == operations.PHASE_CANCELLED, done
        assert w.running_on() == [a.name] and w.owner() == a.name
