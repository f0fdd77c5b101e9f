"""An old backup is restored: the ledger learns from the agents what it has forgotten (I3, I6).

Agents assert what they run, epochs only grow, and no VM is stopped.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from common.errors import Reason
from common.model.operation import Operation
from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2
from tests.system.agents import VM_ID, Host, World, a_vm, until, world
from vcenter.core import indexes
from vcenter.store.sqlite import SqliteStore, care

VMS = range(1, 51)
ONWARD, BACK, OFF, MOVING = range(1, 11), range(11, 16), range(16, 19), range(31, 36)
STAY, UNDEFINED, NEW = range(46, 51), range(49, 51), range(51, 56)


async def move(w: World, numbers: range, to: Host) -> None:
    operations = [await w.relocate(number, to) for number in numbers]
    for operation in operations:
        assert (await w.done(operation)).phase == operations_pb2.PHASE_SUCCEEDED


def truth(w: World) -> dict[int, tuple[str, VmState]]:
    """Where each VM is, by the hypervisors' own word."""
    found = {}
    for number in (*VMS, *NEW):
        for host in w.hosts:
            vm = host.hypervisor.vms.get(VM_ID.format(number))
            if vm is not None:
                assert number not in found, "in two places"
                found[number] = (host.name, vm.state)
    return found


def ledger(w: World) -> dict[int, tuple[str, VmState]]:
    found = {}
    for number in (*VMS, *NEW):
        record = w.center.ledger.table.vm(VM_ID.format(number))
        if record is not None:
            found[number] = (record.location.server_id, record.location.state)
    return found


def ports(w: World) -> int:
    return sum(len(host.open_ports()) for host in w.hosts)


async def live_on(w: World) -> None:
    """What the ledger will have forgotten."""
    one, two, three = w.hosts
    await move(w, range(1, MOVING.start), two)
    await move(w, range(MOVING.stop, STAY.start), two)
    await move(w, ONWARD, three)
    await move(w, BACK, one)
    for number in OFF:
        two.hypervisor.stop(VM_ID.format(number))
    for number in UNDEFINED:
        one.hypervisor.stop(VM_ID.format(number))
        one.hypervisor.undefine(VM_ID.format(number))
    for number in NEW:
        three.hypervisor.create(a_vm(number))
    await until(lambda: ledger(w) == truth(w), within=20)


async def at_peace(w: World, before: dict[int, tuple[str, VmState]]) -> None:
    """Nothing is left of what was under way or here at the time of the backup; and it goes on."""
    table = w.center.ledger.table
    await until(lambda: not set(ledger(w)) & set(UNDEFINED), within=25)
    await until(lambda: not list(table.all(Operation, indexes.ACTIVE)), within=25)
    ended = {m.failure.reason for m in table.all(Operation, indexes.OPERATIONS) if m.failure}
    assert ended == {Reason.STALE_EPOCH.name}
    running = sum(state is VmState.RUNNING for _, state in before.values())
    await until(lambda: ports(w) == running, within=25)
    await move(w, range(1, 6), w.hosts[0])


@pytest.mark.parametrize("also", ["", "agents restart too", "a host is dead"])
async def test_fifty_vms_moved_since_the_backup(tmp_path: Path, also: str) -> None:
    path, saved = tmp_path / "ledger.db", tmp_path / "saved.db"
    async with world(copy_seconds=0.3, store=SqliteStore(path)) as w:
        one, two, _ = [await w.host() for _ in range(3)]
        for number in VMS:
            one.hypervisor.create(a_vm(number))
        await until(lambda: ports(w) == len(VMS))
        for number in MOVING:  # these are under way in the backup
            await w.relocate(number, two)
        await asyncio.to_thread(care.backup, path, saved)
        await until(lambda: all(w.owner(n) == "host-2" for n in MOVING))
        await until(lambda: not list(w.center.ledger.table.all(Operation, indexes.ACTIVE)))
        await live_on(w)
        before, epochs = truth(w), {n: w.epoch(n) for n in (*VMS, *NEW)}
        await w.stop_serving()
        await asyncio.to_thread(care.restore, path, saved, time.time_ns() // 1_000_000)
        if also == "agents restart too":
            for host in w.hosts:
                await host.stop()
        if also == "a host is dead":
            await one.kill()
        await w.serve()
        if also == "agents restart too":
            for host in w.hosts:
                host.boot(w.target)
        expected = {
            n: at for n, at in before.items() if also != "a host is dead" or at[0] != "host-1"
        }

        def converged() -> bool:
            assert truth(w) == before, "a VM was touched"
            known = ledger(w)
            return all(known.get(n) == at for n, at in expected.items())

        await until(converged, within=25)
        assert all(w.epoch(n) >= epochs[n] for n in expected)
        if also != "a host is dead":
            await at_peace(w, before)


@pytest.mark.timeout(1_000)  # three times a thousand VMs, on machines that others use too
async def test_a_thousand_vms_moved_by_hand_since_the_backup(tmp_path: Path) -> None:
    """All of them, each to the next host: as when somebody went through a rack with virsh."""
    path, saved = tmp_path / "ledger.db", tmp_path / "saved.db"
    many = range(1, 1_001)
    async with world(store=SqliteStore(path)) as w:
        for _ in range(4):
            await w.host()

        def host_of(number: int, moved: int) -> Host:
            return w.hosts[(number + moved) % len(w.hosts)]

        def known(moved: int) -> bool:
            return all(w.owner(n) == host_of(n, moved).name for n in many)

        for number in many:
            host_of(number, 0).hypervisor.create(a_vm(number))
        await until(lambda: known(moved=0), within=240)
        await asyncio.to_thread(care.backup, path, saved)
        for number in many:
            left = host_of(number, 0).hypervisor
            left.stop(VM_ID.format(number))
            left.undefine(VM_ID.format(number))
            host_of(number, 1).hypervisor.create(a_vm(number))
        await until(lambda: known(moved=1), within=240)
        epochs = {number: w.epoch(number) for number in many}
        await w.stop_serving()
        await asyncio.to_thread(care.restore, path, saved, time.time_ns() // 1_000_000)
        await w.serve()
        await until(lambda: known(moved=1), within=240)
        assert all(w.epoch(number) >= epoch > 1 for number, epoch in epochs.items())
        for number in many:
            assert w.running_on(number) == [host_of(number, 1).name], "a VM was touched"
        await until(lambda: ports(w) == len(many), within=240)
