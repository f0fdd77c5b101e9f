"""What every adaptor must do with disks that are copied (port.py), and with a guest's budget."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import Reason, Refusal
from common.model.budget import Budget, IfOver
from common.model.disk import Disk
from common.model.operation import Progress
from common.model.vm import VmState
from common.wake import first_of
from tests.contract.hypervisor_bench import DISK_BYTES, PATIENCE, Bench, Machine, until
from tests.contract.hypervisor_kinds import bench, kept, labs, runs_here_only, started, state
from vserver.hypervisor.port import Copied, CopyTerms

__all__ = ["bench", "kept", "labs"]  # fixtures
pytestmark = pytest.mark.timeout(180)


async def with_a_disk(bench: Bench, machine: Machine) -> Disk:
    disk = await bench.make_disk(machine)
    await started(bench, machine)
    return disk


async def begun(bench: Bench, machine: Machine, terms: CopyTerms) -> asyncio.Task[Copied]:
    """A copy of which something has been seen."""
    await bench.destination.make_way(machine.vm_id, terms.disks)
    seen = asyncio.Event()
    uri, devices = bench.destination_uri, machine.devices
    copy = asyncio.create_task(
        bench.source.migrate(machine.vm_id, uri, devices, lambda _: seen.set(), terms)
    )
    async with asyncio.timeout(PATIENCE):
        await first_of(seen.wait(), asyncio.wait({copy}))
    return copy


async def test_a_host_says_which_disks_are_a_vms_own_and_how_big_they_are(bench: Bench) -> None:
    machine = Machine()
    made = await with_a_disk(bench, machine)
    found = await bench.source.get(machine.vm_id)
    assert found is not None
    assert [(disk.path, disk.format) for disk in found.disks] == [(made.path, "qcow2")]
    _, usage = await bench.source.usage()
    size, used = usage[machine.vm_id].disks[made.path]
    assert size == DISK_BYTES
    assert 4 << 20 <= used <= DISK_BYTES


async def test_a_disk_goes_along_and_stays_at_the_source_until_it_is_dropped(bench: Bench) -> None:
    machine, seen = Machine(), list[Progress]()
    disk = await with_a_disk(bench, machine)
    await bench.destination.make_way(machine.vm_id, [disk])
    await bench.destination.make_way(machine.vm_id, [disk])  # as after an agent's restart
    uri, devices, terms = bench.destination_uri, machine.devices, CopyTerms(disks=(disk,))
    done = await bench.source.migrate(machine.vm_id, uri, devices, seen.append, terms)
    assert done.disk_bytes == disk.used
    assert done.bytes > disk.used
    assert any(told.disk_bytes_total for told in seen)
    assert await bench.has_disk(machine, there=True)
    await bench.destination.resume(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING
    assert await bench.has_disk(machine)
    for _ in range(2):  # the second time there is nothing, which is no error
        await bench.source.drop_disks(machine.vm_id, [disk])
        assert await bench.has_disk(machine) is None
    with pytest.raises(Refusal):
        await bench.destination.drop_disks(machine.vm_id, [disk])
    await bench.by_hand("stop", machine.vm_id, there=True)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True), "it has run here: what it wrote is its own"


async def test_without_its_disk_a_vm_does_not_go(bench: Bench) -> None:
    machine = Machine()
    await with_a_disk(bench, machine)
    await bench.destination.make_way(machine.vm_id)
    with pytest.raises(Refusal):
        await bench.source.migrate(
            machine.vm_id, bench.destination_uri, machine.devices, lambda _: None
        )
    await runs_here_only(bench, machine.vm_id)


async def test_a_copy_that_is_aborted_leaves_no_file_there_and_the_disk_here(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    disk = await with_a_disk(bench, machine)
    await bench.copy_slowly(machine.vm_id)
    copy = await begun(bench, machine, CopyTerms(disks=(disk,)))
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal):
        await copy
    await runs_here_only(bench, machine.vm_id)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True) is None
    assert await bench.has_disk(machine)
    with pytest.raises(Refusal):
        await bench.source.drop_disks(machine.vm_id, [disk])
    assert await bench.has_disk(machine)
    # Nothing of it is in the way of another one.
    copy = await begun(bench, machine, CopyTerms(disks=(disk,)))
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal):
        await copy


async def test_a_file_that_is_there_already_is_not_touched(bench: Bench) -> None:
    machine = Machine()
    disk = await with_a_disk(bench, machine)
    await bench.make_disk(machine, there=True)
    with pytest.raises(Refusal):
        await bench.destination.make_way(machine.vm_id, [disk])
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True)


@pytest.mark.parametrize("bench", ["libvirt", "qemu"], indirect=True)
async def test_a_path_that_no_disk_may_have_is_refused(bench: Bench) -> None:
    """Where files have directories."""
    machine = Machine()
    for path in ("/etc/passwd-", "definition.json", "../up.qcow2", "/var/lib/libvirt/x.qcow2"):
        with pytest.raises(Refusal):
            await bench.destination.make_way(machine.vm_id, [Disk(path, "raw", 1 << 20)])


async def test_a_guest_that_is_not_switched_by_its_deadline_stays(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    await started(bench, machine)
    await bench.copy_slowly(machine.vm_id)
    terms = CopyTerms(budget=Budget(if_over=IfOver.REFUSE, deadline_ms=1))
    copy = await begun(bench, machine, terms)
    with pytest.raises(Refusal) as refused:
        await copy
    assert refused.value.reason is Reason.DOWNTIME_NOT_KEPT
    await runs_here_only(bench, machine.vm_id)


async def test_a_guest_that_may_stand_still_for_the_rest_moves_by_its_deadline(
    bench: Bench,
) -> None:
    machine = Machine()
    await started(bench, machine)
    terms = CopyTerms(budget=Budget(if_over=IfOver.SUSPEND, deadline_ms=1))
    copy = await begun(bench, machine, terms)
    done = await copy
    assert done.suspended
    await until(bench.source, machine.vm_id, lambda vm: vm is None)
    await bench.destination.resume(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING
