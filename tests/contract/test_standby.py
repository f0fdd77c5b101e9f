"""What every adaptor that keeps standbys must do (standby.py): `memory`, and QEMU itself.

On libvirt it takes an agent on each host, see tests/hosts/test_standby.py.
"""

from __future__ import annotations

import asyncio

import pytest

from common.errors import Reason, Refusal
from common.model.disk import Disk
from common.model.operation import HostedState
from common.model.vm import VmState
from tests.contract.hypervisor_bench import PATIENCE, Bench, Machine
from tests.contract.hypervisor_kinds import bench, kept, labs, started, state
from vserver.hypervisor.port import Hypervisor
from vserver.hypervisor.standby import Mirrored, Standbys

__all__ = ["bench", "kept", "labs"]  # fixtures
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("bench", ["memory", "qemu"], indirect=True),
]


def standbys(hypervisor: Hypervisor) -> Standbys:
    found = hypervisor.standbys
    assert found is not None
    return found


async def begun(bench: Bench, machine: Machine) -> tuple[Disk, bytes]:
    """A guest whose disk is being mirrored; and its definition."""
    disk = await bench.make_disk(machine)
    await started(bench, machine)
    return disk, await mirror(bench, machine, disk)


async def mirror(bench: Bench, machine: Machine, disk: Disk) -> bytes:
    port = await standbys(bench.destination).receive(machine.vm_id, [disk])
    uri = bench.destination_uri
    return await standbys(bench.source).mirror(machine.vm_id, uri, port, [disk])


async def until_in_step(bench: Bench, machine: Machine) -> Mirrored:
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = await standbys(bench.source).mirrored(machine.vm_id)
            assert seen is not None
            if seen.in_step and not seen.missing:
                return seen
            await asyncio.sleep(0.05)


async def test_what_was_on_the_disk_and_what_is_written_is_there(bench: Bench) -> None:
    machine = Machine()
    disk, definition = await begun(bench, machine)
    assert (await until_in_step(bench, machine)).total > 0
    assert await bench.has_disk(machine, there=True)
    await bench.guest_writes(machine)
    assert await bench.destination.hosted(machine.vm_id) is HostedState.ABSENT
    assert await bench.destination.get(machine.vm_id) is None, "nothing that could be started"
    for host in (bench.source, bench.destination):
        assert machine.vm_id in await standbys(host).kept()
    await bench.by_hand("stop", machine.vm_id)
    there = standbys(bench.destination)
    for _ in range(2):  # done already is no error
        await there.adopt(machine.vm_id, definition, [disk])
        assert await state(bench.destination, machine.vm_id) is VmState.SHUT_OFF
    await bench.destination.power_on(machine.vm_id)
    found = await bench.destination.get(machine.vm_id)
    assert found is not None and found.state is VmState.RUNNING
    assert (found.vm.tenant, found.vm.name) == (machine.tenant, machine.name)
    assert await bench.has_disk(machine, there=True)
    assert await bench.has_written(machine, there=True)
    await there.drop(machine.vm_id)
    assert await bench.has_written(machine, there=True), "what was adopted is not dropped"
    assert machine.vm_id not in await there.kept()


async def test_a_copy_that_was_adopted_and_has_left_is_not_adopted_again(bench: Bench) -> None:
    """Moved away by hand, say: its file may be there still, and it would run twice."""
    machine = Machine()
    disk, definition = await begun(bench, machine)
    await until_in_step(bench, machine)
    await bench.by_hand("stop", machine.vm_id)
    there = standbys(bench.destination)
    await there.adopt(machine.vm_id, definition, [disk])
    await bench.by_hand("undefine", machine.vm_id, there=True)
    with pytest.raises(Refusal) as refused:
        await there.adopt(machine.vm_id, definition, [disk])
    assert refused.value.reason is Reason.NO_STANDBY
    assert await bench.destination.hosted(machine.vm_id) is HostedState.ABSENT


async def test_what_is_ended_leaves_nothing_there_and_the_guest_its_own_disk(bench: Bench) -> None:
    machine = Machine()
    await begun(bench, machine)
    await until_in_step(bench, machine)
    for _ in range(2):
        await standbys(bench.source).unmirror(machine.vm_id)
        await standbys(bench.destination).drop(machine.vm_id)
    assert await bench.has_disk(machine, there=True) is None
    for host in (bench.source, bench.destination):
        assert machine.vm_id not in await standbys(host).kept()
    with pytest.raises(Refusal):
        await standbys(bench.source).mirrored(machine.vm_id)
    await bench.guest_writes(machine)
    assert await bench.has_written(machine)
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING


async def test_where_nobody_takes_it_any_more_the_guest_goes_on_and_it_is_told(
    bench: Bench,
) -> None:
    machine = Machine()
    disk, _ = await begun(bench, machine)
    await until_in_step(bench, machine)
    await standbys(bench.destination).drop(machine.vm_id)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Refusal):
            while True:
                await bench.guest_writes(machine)  # idle, nobody would notice
                await standbys(bench.source).mirrored(machine.vm_id)
    assert await bench.has_written(machine)
    definition = await mirror(bench, machine, disk)
    await until_in_step(bench, machine)
    await standbys(bench.destination).adopt(machine.vm_id, definition, [disk])
    assert await bench.has_written(machine, there=True)


async def test_it_goes_on_without_an_agent(bench: Bench) -> None:
    machine = Machine()
    disk, definition = await begun(bench, machine)
    await until_in_step(bench, machine)
    await bench.restart_agent()
    await bench.guest_writes(machine)
    assert machine.vm_id in await standbys(bench.destination).kept()
    await bench.by_hand("stop", machine.vm_id)
    await standbys(bench.destination).adopt(machine.vm_id, definition, [disk])
    assert await bench.has_written(machine, there=True)


async def test_a_guest_that_is_off_or_was_started_anew_is_not_called_mirrored(
    bench: Bench,
) -> None:
    machine = Machine()
    await begun(bench, machine)
    await until_in_step(bench, machine)
    await bench.by_hand("stop", machine.vm_id)
    assert await standbys(bench.source).mirrored(machine.vm_id) is None
    await bench.by_hand("start", machine.vm_id)
    with pytest.raises(Refusal):
        await standbys(bench.source).mirrored(machine.vm_id)


async def test_a_file_that_is_there_already_is_not_written_over(bench: Bench) -> None:
    machine = Machine()
    disk = await bench.make_disk(machine)
    await bench.make_disk(machine, there=True)
    with pytest.raises(Refusal):
        await standbys(bench.destination).receive(machine.vm_id, [disk])
    await standbys(bench.destination).drop(machine.vm_id)
    assert await bench.has_disk(machine, there=True)
