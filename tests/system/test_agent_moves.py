"""Moves between real agents, ordered by a real vCenter over gRPC."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest

from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2
from tests.system.agents import OPERATOR, VM_ID, Host, World, a_vm, until, world

VM = VM_ID.format(1)
SUCCEEDED, FAILED = operations_pb2.PHASE_SUCCEEDED, operations_pb2.PHASE_FAILED
CANCELLED = operations_pb2.PHASE_CANCELLED


async def two_hosts(w: World, *ips: str) -> tuple[Host, Host]:
    """The VM runs on the first, its port open; with these addresses, if any are named."""
    a, b = await w.host(), await w.host()
    vm = a_vm()
    own = tuple(replace(each, ips=ips or each.ips) for each in vm.interfaces)
    a.hypervisor.create(replace(vm, interfaces=own))
    await until(lambda: len(a.open_ports()) == 1)
    return a, b


async def test_a_vm_moves_with_its_policy_and_back_again() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        for origin, goal, epoch in ((a, b, 2), (b, a, 3)):
            done = await w.done(await w.relocate(1, goal))
            assert done.phase == SUCCEEDED, done
            assert w.owner() == goal.name and w.epoch() == epoch
            assert w.running_on() == [goal.name]
            assert not origin.hypervisor.vms and len(goal.open_ports()) == 1
            await until(lambda origin=origin: not origin.fabric.host(origin.vtep).ports)
            assert done.receipt.policy_hash_before == done.receipt.policy_hash_after != ""
            assert done.receipt.downtime_ms > 0 and done.receipt.bytes == 128 << 20


@pytest.mark.parametrize("ip", ["10.1.0.1", "2001:db8::1"])
async def test_a_third_host_measures_the_blackout(ip: str) -> None:
    async with world() as w:
        _, b = await two_hosts(w, ip)
        beside = await w.host()
        beside.hypervisor.create(a_vm(2))
        await until(lambda: len(beside.open_ports()) == 1)
        await until(lambda: w.owner(2) == beside.name)
        done = await w.done(await w.relocate(1, b))
        assert done.phase == SUCCEEDED and done.receipt.observer == beside.name
        await until(lambda: w.receipt(done).blackout_ms is not None, within=60.0)
        assert not w.receipt(done).blackout_why


async def test_a_copy_that_fails_leaves_the_vm_where_it_was() -> None:
    async with world() as w:
        a, b = await two_hosts(w)
        a.hypervisor.fail_next_migration("no route to host")
        done = await w.done(await w.relocate(1, b))
        assert done.phase == FAILED and "no route" in done.failure.message
        assert w.owner() == "host-1" and w.epoch() == 1 and w.running_on() == ["host-1"]
        assert len(a.open_ports()) == 1
        await until(lambda: not b.fabric.host(b.vtep).ports)
        assert (await w.done(await w.relocate(1, b))).phase == SUCCEEDED


async def test_a_move_can_be_cancelled_during_the_copy() -> None:
    async with world(copy_seconds=2.0) as w:
        a, b = await two_hosts(w)
        operation = await w.relocate(1, b)
        await until(lambda: VM in b.hypervisor.vms)
        request = operations_pb2.CancelOperationRequest(operation_id=operation.operation_id)
        await w.operations.Cancel(request, metadata=OPERATOR)
        done = await w.done(operation)
        assert done.phase == CANCELLED and w.running_on() == ["host-1"]
        assert not b.hypervisor.vms and len(a.open_ports()) == 1


@pytest.mark.parametrize("victim", ["source", "destination", "both"])
@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_an_agent_that_restarts_during_the_copy_loses_nothing(victim: str, way: str) -> None:
    async with world(copy_seconds=0.6) as w:
        a, b = await two_hosts(w)
        operation = await w.relocate(1, b)
        await until(lambda: VM in b.hypervisor.vms)
        victims = {"source": [a], "destination": [b], "both": [a, b]}[victim]
        for host in victims:
            await (host.stop() if way == "stop" else host.kill())
            assert len(w.running_on()) <= 1
        for host in victims:
            host.boot(w.target)
        done = await w.done(operation)
        assert done.phase == SUCCEEDED, done
        assert w.running_on() == ["host-2"] and len(b.open_ports()) == 1


async def test_agents_killed_at_any_moment_leave_one_vm_running() -> None:
    """I1, I6: whatever the moment, the VM runs once in the end, with its port open."""
    chance = random.Random(7)
    async with world(copy_seconds=0.1) as w:
        a, b = await two_hosts(w)
        for _ in range(12):
            goal = b if w.owner() == "host-1" else a
            operation = await w.relocate(1, goal)
            await asyncio.sleep(chance.uniform(0.0, 0.25))
            for host in chance.sample([a, b], chance.choice([1, 2])):
                await host.kill()
                assert len(w.running_on()) <= 1
                host.boot(w.target)
            done = await w.done(operation)
            assert done.phase in (SUCCEEDED, FAILED), done
            assert w.running_on() == [w.owner()]
            owner = a if w.owner() == "host-1" else b
            await until(lambda owner=owner: len(owner.open_ports()) == 1)
            other = b if owner is a else a
            await until(lambda other=other: not other.open_ports())
            assert owner.hypervisor.vms[VM].state is VmState.RUNNING


async def test_a_host_whose_hypervisor_goes_away_while_it_starts_a_vm_comes_back() -> None:
    async with world(copy_seconds=0.3) as w:
        a, b = await two_hosts(w)
        operation = await w.relocate(1, b)
        await until(lambda: VM in b.hypervisor.vms)
        b.hypervisor.disconnect()
        await until(lambda: VM not in a.hypervisor.vms)
        await asyncio.sleep(0.3)
        assert w.owner() == "host-2" and w.running_on() == []
        b.hypervisor.reconnect()
        done = await w.done(operation)
        assert done.phase == SUCCEEDED and w.running_on() == ["host-2"]


async def test_many_vms_move_at_once() -> None:
    async with world(copy_seconds=0.5) as w:
        a, b = await w.host(), await w.host()
        numbers = range(1, 21)
        for number in numbers:
            a.hypervisor.create(a_vm(number))
        await until(lambda: len(a.open_ports()) == len(numbers))
        operations = [await w.relocate(number, b) for number in numbers]
        for operation in operations:
            assert (await w.done(operation)).phase == SUCCEEDED
        assert all(w.running_on(number) == ["host-2"] for number in numbers)
        assert len(b.open_ports()) == len(numbers)


@pytest.mark.parametrize("moment", ["at once", "during the copy", "after the copy"])
async def test_a_move_goes_on_when_the_vcenter_comes_back(moment: str) -> None:
    async with world(copy_seconds=0.4) as w:
        a, b = await two_hosts(w)
        operation = await w.relocate(1, b)
        if moment != "at once":
            await until(lambda: VM in b.hypervisor.vms)
        await w.stop_serving()
        if moment == "after the copy":
            await until(lambda: VM not in a.hypervisor.vms)
        await asyncio.sleep(0.1)
        await w.serve()
        done = await w.done(operation)
        assert done.phase == SUCCEEDED, done
        assert w.running_on() == ["host-2"] and len(b.open_ports()) == 1


async def test_a_vcenter_that_is_away_is_not_missed() -> None:
    async with world() as w:
        a, _ = await two_hosts(w)
        await w.stop_serving()
        a.hypervisor.stop(VM)
        await until(lambda: not a.fabric.host(a.vtep).ports)
        a.hypervisor.start(VM)
        await until(lambda: len(a.open_ports()) == 1)
        a.hypervisor.create(a_vm(2))
        await asyncio.sleep(0.2)
        assert len(a.open_ports()) == 1, "nobody has said that the new one may speak"
        await w.serve()
        await until(lambda: w.owner(2) == "host-1" and len(a.open_ports()) == 2)


async def test_a_cancel_around_the_switch_loses_no_vm() -> None:
    """The source may have let go already when the cancel is heard: then the move goes forward."""
    async with world(copy_seconds=0.02) as w:
        a, b = await two_hosts(w)
        for attempt in range(20):
            origin, goal = (a, b) if w.owner() == "host-1" else (b, a)
            operation = await w.relocate(1, goal)
            while origin.hypervisor.vms[VM].state is not VmState.PAUSED:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0.016 + 0.0003 * attempt)  # it stands still for 20 ms
            request = operations_pb2.CancelOperationRequest(operation_id=operation.operation_id)
            with suppress(grpc.aio.AioRpcError):  # too late, as it may be
                await w.operations.Cancel(request, metadata=OPERATOR)
            done = await w.done(operation)
            assert done.phase in (SUCCEEDED, CANCELLED), done
            assert w.running_on() == [w.owner()]
