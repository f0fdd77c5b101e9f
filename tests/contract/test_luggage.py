"""What every adaptor that carries disks must do with those of a VM that is off (port.py).

On libvirt it takes an agent on each host, see tests/hosts/test_cold_disks.py.
"""

from __future__ import annotations

import pytest

from common.errors import Refusal
from common.model.disk import Disk
from common.model.operation import Progress
from common.model.vm import VmState
from tests.contract.hypervisor_bench import DISK_BYTES, Bench, Machine
from tests.contract.hypervisor_kinds import bench, kept, labs, state
from vserver.hypervisor.port import Luggage

__all__ = ["bench", "kept", "labs"]  # fixtures
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("bench", ["memory", "qemu"], indirect=True),
]


async def off(bench: Bench, machine: Machine) -> Disk:
    """A VM that is off, with something on its disk."""
    assert bench.source.carries_disks and bench.destination.carries_disks
    disk = await bench.make_disk(machine)
    await bench.create(machine, started=False)
    return disk


async def handed_over(bench: Bench, machine: Machine, disk: Disk) -> list[Progress]:
    seen = list[Progress]()
    port = await bench.destination.take(machine.vm_id, [disk])
    luggage = Luggage((disk,), port, seen.append)
    await bench.source.hand_over(machine.vm_id, bench.destination_uri, luggage)
    return seen


async def test_a_host_says_how_big_the_disks_are_of_what_is_off(bench: Bench) -> None:
    machine = Machine()
    disk = await off(bench, machine)
    _, usage = await bench.source.usage()
    size, used = usage[machine.vm_id].disks[disk.path]
    assert (size, usage[machine.vm_id].cpu_percent) == (DISK_BYTES, 0.0)
    assert 4 << 20 <= used <= DISK_BYTES


async def test_its_disk_goes_along_and_stays_at_the_source_until_it_is_dropped(
    bench: Bench,
) -> None:
    machine = Machine()
    disk = await off(bench, machine)
    seen = await handed_over(bench, machine, disk)
    assert seen[-1].disk_bytes_processed == disk.used == seen[-1].disk_bytes_total
    assert not await bench.source.keeps(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.SHUT_OFF
    with pytest.raises(Refusal):  # who takes its disk still has it open
        await bench.destination.power_on(machine.vm_id)
    for _ in range(2):  # done already is no error
        await bench.destination.settle(machine.vm_id)
    assert await bench.has_disk(machine) and await bench.has_disk(machine, there=True)
    await bench.source.discard(machine.vm_id)
    assert await bench.has_disk(machine), "no file that was here before is a move's remains"
    await bench.source.drop_disks(machine.vm_id, [disk])
    assert await bench.has_disk(machine) is None
    await bench.destination.power_on(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING
    await bench.by_hand("stop", machine.vm_id, there=True)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True), "it is the guest's own"


async def test_a_hand_over_that_goes_back_leaves_nothing_there_and_the_disk_here(
    bench: Bench,
) -> None:
    machine = Machine()
    disk = await off(bench, machine)
    port = await bench.destination.take(machine.vm_id, [disk])
    await bench.destination.discard(machine.vm_id)
    with pytest.raises(Refusal):  # nobody takes anything there any more
        luggage = Luggage((disk,), port)
        await bench.source.hand_over(machine.vm_id, bench.destination_uri, luggage)
    assert await bench.source.keeps(machine.vm_id) and await bench.has_disk(machine)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True) is None
    assert not await bench.destination.keeps(machine.vm_id)
    await bench.source.power_on(machine.vm_id)
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING


async def test_what_was_handed_over_and_is_discarded_takes_its_copies_with_it(
    bench: Bench,
) -> None:
    """As when nobody heard that the hand-over went well, and the move goes back."""
    machine = Machine()
    disk = await off(bench, machine)
    await handed_over(bench, machine, disk)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True) is None
    assert await bench.has_disk(machine)


async def test_an_agent_that_restarts_goes_on_taking(bench: Bench) -> None:
    """Where the source has been told that it does."""
    machine = Machine()
    disk = await off(bench, machine)
    port = await bench.destination.take(machine.vm_id, [disk])
    await bench.restart_agent()
    assert await bench.destination.take(machine.vm_id, [disk]) == port
    luggage = Luggage((disk,), port)
    await bench.source.hand_over(machine.vm_id, bench.destination_uri, luggage)
    await bench.restart_agent()
    await bench.destination.settle(machine.vm_id)
    assert await bench.has_disk(machine, there=True)


async def test_a_file_that_is_there_already_is_not_written_to(bench: Bench) -> None:
    machine = Machine()
    disk = await off(bench, machine)
    await bench.make_disk(machine, there=True)
    with pytest.raises(Refusal):
        await bench.destination.take(machine.vm_id, [disk])
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True)
