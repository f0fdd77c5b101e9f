"""A gated copy of `qemu`: the guest is held at its source, all sent, until the ledger has decided.

It runs at the destination as soon as the last of it is there, or again at the source, with its
memory; and nowhere while nobody has said where.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from common.errors import Refusal
from common.model.disk import Disk
from common.model.operation import HostedState
from common.model.vm import VmState
from tests.contract.hypervisor_bench import PATIENCE, Machine, until
from tests.contract.hypervisor_kinds import copying, runs_here_only, started, state
from tests.contract.hypervisor_qemu import QemuBench
from tests.contract.qemu_fixtures import bench, netns
from vserver.hypervisor.port import CopyTerms
from vserver.hypervisor.qemu.home import Homes

__all__ = ["bench", "netns"]  # fixtures

pytestmark = pytest.mark.timeout(120)
GATED = CopyTerms(gated=True)


async def sent(bench: QemuBench, machine: Machine, disks: tuple[Disk, ...] = ()) -> None:
    """The ledger has not been heard yet."""
    await started(bench, machine)
    await bench.destination.make_way(machine.vm_id, disks)
    assert await bench.destination.hold(machine.vm_id)
    terms = CopyTerms(gated=True, disks=disks)
    uri, devices = bench.destination_uri, machine.devices
    await bench.source.migrate(machine.vm_id, uri, devices, lambda _: None, terms)


async def hosted(bench: QemuBench, vm_id: str) -> tuple[HostedState, HostedState]:
    return await bench.source.hosted(vm_id), await bench.destination.hosted(vm_id)


async def came_back(bench: QemuBench, machine: Machine) -> None:
    await runs_here_only(bench, machine.vm_id)
    home = Homes(bench.roots[0]).of(machine.vm_id)
    assert not home.has("leaving") and not home.has("held")
    await bench.by_hand("pause", machine.vm_id)  # it is its owner's again
    await bench.by_hand("stop", machine.vm_id)


async def test_what_is_held_runs_there_and_is_over_here(bench: QemuBench) -> None:
    machine = Machine()
    await sent(bench, machine)
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.RUNNING)
    await asyncio.sleep(0.3)  # as a slow ledger would take
    assert machine.vm_id not in [each.vm.vm_id for each in await bench.source.list()]
    for _ in range(2):
        await bench.destination.resume(machine.vm_id)
        assert await state(bench.destination, machine.vm_id) is VmState.RUNNING
    assert await bench.source.hosted(machine.vm_id) is HostedState.HELD
    await bench.source.discard(machine.vm_id)
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    figures = await bench.source.last_figures(machine.vm_id)
    assert figures is not None and figures.bytes > 0
    assert figures.downtime_ms > 250, "until it ran over there, not only until it was sent"
    assert await bench.source.last_figures(machine.vm_id) is None
    await bench.source.make_way(machine.vm_id)
    assert not Homes(bench.roots[0]).of(machine.vm_id).path.exists()


async def test_a_start_waits_for_the_last_of_the_memory(bench: QemuBench) -> None:
    """And for nobody else's word: neither agent has anything more to say."""
    machine = Machine()
    copy = await copying(bench, machine, gated=True)
    start = asyncio.create_task(bench.destination.resume(machine.vm_id))
    await bench.copy_quickly(machine.vm_id)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(copy, start)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING
    assert await bench.source.hosted(machine.vm_id) is HostedState.HELD


async def test_what_dies_on_its_way_was_never_held(bench: QemuBench) -> None:
    """QEMU lets the guest run on by itself then, at the gate as before it."""
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine, gated=True)
    start = asyncio.create_task(bench.destination.resume(machine.vm_id))
    os.kill(bench.pid(machine.vm_id, there=True), signal.SIGKILL)
    with pytest.raises(Refusal):
        await copy
    with pytest.raises((Refusal, TimeoutError)):  # a QEMU that has just died may not say so yet
        await start
    await came_back(bench, machine)


async def test_a_gated_copy_is_called_off_before_it_is_held(bench: QemuBench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine, gated=True)
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal):
        await copy
    await came_back(bench, machine)


async def test_what_is_held_is_not_called_off(bench: QemuBench) -> None:
    machine = Machine()
    await sent(bench, machine)
    await bench.source.abort(machine.vm_id)
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.RUNNING)
    with pytest.raises(Refusal):
        await bench.source.migrate(
            machine.vm_id, bench.destination_uri, machine.devices, lambda _: None, GATED
        )
    with pytest.raises(Refusal):
        await bench.hand().resume(machine.vm_id)
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.RUNNING)


async def test_when_the_destination_dies_the_source_has_the_guest_with_its_memory(
    bench: QemuBench,
) -> None:
    machine = Machine()
    await sent(bench, machine)
    before = await bench.memory(machine.vm_id)
    os.kill(bench.pid(machine.vm_id, there=True), signal.SIGKILL)
    with pytest.raises((Refusal, TimeoutError)):
        await bench.destination.resume(machine.vm_id)
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.ABSENT)
    assert await bench.memory(machine.vm_id) == before
    shown = await until(bench.source, machine.vm_id, lambda vm: vm is not None)
    assert shown is not None and shown.state is VmState.INCOMING
    assert shown.taps[0].device
    for _ in range(2):
        await bench.source.resume(machine.vm_id)
    await bench.destination.discard(machine.vm_id)
    await came_back(bench, machine)


@pytest.mark.parametrize("ends", ["resume", "discard"])
async def test_the_next_agent_holds_what_was_held(bench: QemuBench, ends: str) -> None:
    machine = Machine()
    await sent(bench, machine)
    await bench.restart_source()
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.RUNNING)
    assert await state(bench.source, machine.vm_id) is VmState.INCOMING
    await bench.source.abort(machine.vm_id)
    assert await hosted(bench, machine.vm_id) == (HostedState.HELD, HostedState.RUNNING)
    if ends == "resume":
        await bench.destination.discard(machine.vm_id)
        await bench.source.resume(machine.vm_id)
        await came_back(bench, machine)
        return
    await bench.destination.resume(machine.vm_id)
    await bench.source.discard(machine.vm_id)
    assert await hosted(bench, machine.vm_id) == (HostedState.ABSENT, HostedState.RUNNING)


async def test_the_next_agent_at_the_destination_starts_what_arrived(bench: QemuBench) -> None:
    machine = Machine()
    await sent(bench, machine)
    await bench.restart_agent()
    await bench.destination.resume(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING


async def test_what_is_held_and_dies_is_absent(bench: QemuBench) -> None:
    """Where the destination has it, nothing is lost; else nobody has it, and nobody says so."""
    machine = Machine()
    await sent(bench, machine)
    os.kill(bench.pid(machine.vm_id), signal.SIGKILL)
    await until(bench.source, machine.vm_id, lambda vm: vm and vm.state is VmState.SHUT_OFF)
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    with pytest.raises(Refusal, match="may run there"):
        await bench.hand().start(machine.vm_id)
    await bench.destination.resume(machine.vm_id)
    await bench.source.discard(machine.vm_id)
    assert not Homes(bench.roots[0]).of(machine.vm_id).path.exists()


async def test_its_disks_go_with_it_and_come_back_with_it(bench: QemuBench) -> None:
    machine = Machine(memory_mib=32)
    disk = await bench.make_disk(machine)
    await sent(bench, machine, (disk,))
    assert await bench.has_disk(machine, there=True)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine, there=True) is None
    await bench.source.resume(machine.vm_id)
    await bench.guest_writes(machine)
    await came_back(bench, machine)
    assert await bench.has_written(machine)


async def test_its_disks_are_its_own_there_and_dropped_here(bench: QemuBench) -> None:
    machine = Machine(memory_mib=32)
    disk = await bench.make_disk(machine)
    await sent(bench, machine, (disk,))
    await bench.destination.resume(machine.vm_id)
    with pytest.raises(Refusal):
        await bench.source.drop_disks(machine.vm_id, [disk])
    await bench.source.discard(machine.vm_id)
    await bench.source.drop_disks(machine.vm_id, [disk])
    assert await bench.has_disk(machine) is None
    assert await bench.has_disk(machine, there=True)
