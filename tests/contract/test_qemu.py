"""Where only `qemu` can fail: an agent that ends in the middle of a copy, and people."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.config import parse
from common.errors import Refusal
from common.model.operation import HostedState
from common.model.vm import VmState
from tests.contract.hypervisor_bench import PATIENCE, Machine, event, until
from tests.contract.hypervisor_qemu import QemuBench, definition
from tests.contract.qemu_fixtures import bench, netns
from vserver import doctor
from vserver.config import AgentConfig
from vserver.hypervisor.qemu.definition import DiskSection
from vserver.hypervisor.qemu.home import Home, Homes
from vserver.hypervisor.qemu.mirror import Mirrors
from vserver.hypervisor.qemu.monitor import at_hand
from vserver.hypervisor.qemu.wire import Address, Line

__all__ = ["bench", "netns"]  # fixtures

pytestmark = pytest.mark.timeout(120)


async def arrived(bench: QemuBench, vm_id: str) -> None:
    """The source has sent everything before the destination has taken it in."""
    hand = Homes(bench.roots[1]).of(vm_id).file("hand")
    async with asyncio.timeout(PATIENCE), at_hand(hand, vm_id) as monitor:
        while await monitor.status() == "inmigrate":  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


async def left_by_an_agent(bench: QemuBench, machine: Machine, at: str) -> Home:
    """A copy that an agent had begun, and that stands at this status when it is gone."""
    await bench.create(machine)
    await bench.destination.make_way(machine.vm_id)
    home = Homes(bench.roots[0]).of(machine.vm_id)
    launch = home.launch()
    assert launch is not None
    address = Address.parse(bench.destination_uri)
    line = await Line.connect(address, None)
    answer = await line.ask(
        PATIENCE,
        take=launch.model_dump_json(),
        next=launch.definition.model_dump_json(),
        devices=machine.devices,
    )
    home.mark("leaving", bench.destination_uri)
    gate = at == "pre-switchover"
    capabilities = [
        {"capability": "events", "state": True},
        {"capability": "pause-before-switchover", "state": gate},
    ]
    async with at_hand(home.file("hand"), home.vm_id) as monitor:
        await monitor.execute("migrate-set-capabilities", capabilities=capabilities)
        await monitor.execute("migrate", uri=address.memory_uri(answer["port"]))
        async for event in monitor.events():
            if event["event"] == "MIGRATION" and event["data"]["status"] == at:
                break
    if at == "completed":
        await arrived(bench, machine.vm_id)
    line.close()
    await bench.restart_source()
    return home


async def states(bench: QemuBench, vm_id: str) -> tuple[VmState | None, VmState | None]:
    found = [await side.get(vm_id) for side in (bench.source, bench.destination)]
    here, there = (each.state if each else None for each in found)
    return here, there


async def test_a_guest_that_an_agent_left_at_the_gate_runs_on(bench: QemuBench) -> None:
    machine = Machine()
    home = await left_by_an_agent(bench, machine, "pre-switchover")
    await until(bench.source, machine.vm_id, lambda vm: vm is not None and _runs(vm.state))
    await until(bench.destination, machine.vm_id, lambda vm: vm is None)
    assert not home.has("leaving")


async def test_disks_that_an_agent_left_mirroring_are_the_guests_alone_again(
    bench: QemuBench,
) -> None:
    machine = Machine(memory_mib=32)
    disk = await bench.make_disk(machine)
    await bench.create(machine)
    await bench.destination.make_way(machine.vm_id, [disk])
    home = Homes(bench.roots[0]).of(machine.vm_id)
    launch = home.launch()
    assert launch is not None
    address = Address.parse(bench.destination_uri)
    line = await Line.connect(address, None)
    definition = launch.definition.model_dump_json()
    answer = await line.ask(
        PATIENCE,
        take=launch.model_dump_json(),
        next=definition,
        devices=machine.devices,
        disks=[0],
    )
    home.mark("leaving", bench.destination_uri)
    async with at_hand(home.file("hand"), home.vm_id) as monitor:
        mirrors = Mirrors(monitor, SystemClock(), [0])
        await mirrors.begin(address, int(answer["disks"]), "", [0])
        await mirrors.in_step(lambda: None)
    line.close()
    await bench.restart_source()
    await until(bench.source, machine.vm_id, lambda vm: vm is not None and _runs(vm.state))
    async with at_hand(home.file("hand"), home.vm_id) as monitor:
        assert not await monitor.execute("query-jobs")
        nodes = await monitor.execute("query-named-block-nodes", flat=True)
    assert {node["node-name"] for node in nodes} == {"disk0", "file0"}
    assert not home.has("leaving")
    await until(bench.destination, machine.vm_id, lambda vm: vm is None)
    await bench.destination.discard(machine.vm_id)
    assert await bench.has_disk(machine) and await bench.has_disk(machine, there=True) is None


def test_a_disk_in_the_guests_folder_is_written_to() -> None:
    """One that is read only is on storage that the hosts share: it is not copied."""
    with pytest.raises(ValueError, match="absolute"):
        DiskSection(path=Path("root.qcow2"), read_only=True)


async def test_a_guest_that_was_sent_is_asked_about_and_ended(bench: QemuBench) -> None:
    machine = Machine()
    await left_by_an_agent(bench, machine, "completed")
    assert await states(bench, machine.vm_id) == (VmState.PAUSED, VmState.INCOMING)
    with pytest.raises(Refusal):
        await bench.hand().resume(machine.vm_id)
    with pytest.raises(Refusal):
        await bench.source.resume(machine.vm_id)
    uri, devices = bench.destination_uri, machine.devices
    await bench.source.migrate(machine.vm_id, uri, devices, lambda _: None)
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    await bench.destination.resume(machine.vm_id)
    assert await states(bench, machine.vm_id) == (None, VmState.RUNNING)


async def test_a_guest_that_was_sent_can_be_called_back(bench: QemuBench) -> None:
    machine = Machine()
    await left_by_an_agent(bench, machine, "completed")
    await bench.source.abort(machine.vm_id)
    assert await states(bench, machine.vm_id) == (VmState.RUNNING, None)
    assert await bench.destination.hosted(machine.vm_id) is HostedState.ABSENT


async def test_a_guest_that_runs_there_is_never_called_back(bench: QemuBench) -> None:
    machine = Machine()
    await left_by_an_agent(bench, machine, "completed")
    await bench.destination.resume(machine.vm_id)
    await bench.source.abort(machine.vm_id)
    assert await states(bench, machine.vm_id) == (None, VmState.RUNNING)


async def test_while_the_destination_is_silent_a_guest_that_was_sent_runs_nowhere(
    bench: QemuBench,
) -> None:
    machine = Machine()
    await left_by_an_agent(bench, machine, "completed")
    await bench.destination.close()
    with pytest.raises(TimeoutError):
        await bench.source.abort(machine.vm_id)
    found = await bench.source.get(machine.vm_id)
    assert found is not None and found.state is VmState.PAUSED
    assert await bench.source.hosted(machine.vm_id) is HostedState.RUNNING
    await bench.destination.open()


async def test_a_destination_takes_in_only_what_it_was_told_of(bench: QemuBench) -> None:
    machine = Machine()
    await bench.create(machine)
    with pytest.raises(Refusal, match="not expected"):
        await bench.source.migrate(
            machine.vm_id, bench.destination_uri, machine.devices, lambda _: None
        )
    assert await states(bench, machine.vm_id) == (VmState.RUNNING, None)


async def test_a_guest_that_may_run_elsewhere_is_not_started_by_hand(bench: QemuBench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    Homes(bench.roots[0]).of(machine.vm_id).mark("leaving", "qmp+tcp://10.0.0.2:7402")
    with pytest.raises(Refusal, match="may run there"):
        await bench.hand().start(machine.vm_id)
    assert await states(bench, machine.vm_id) == (VmState.SHUT_OFF, None)


async def test_a_process_is_found_without_its_pid_file(bench: QemuBench) -> None:
    """ABSENT must be true: what a person deletes changes nothing of it."""
    machine = Machine()
    await bench.create(machine)
    pid_file = Homes(bench.roots[0]).of(machine.vm_id).file("pid")
    pid = int(pid_file.read_text())
    pid_file.unlink()
    assert await bench.source.hosted(machine.vm_id) is HostedState.RUNNING
    with pytest.raises(Refusal, match="runs already"):
        await bench.hand().start(machine.vm_id)
    pid_file.write_text(str(os.getpid()))  # a stranger's
    assert await bench.source.hosted(machine.vm_id) is HostedState.RUNNING
    assert await states(bench, machine.vm_id) == (VmState.RUNNING, None)
    os.kill(pid, signal.SIGKILL)
    await until(bench.source, machine.vm_id, lambda vm: vm and vm.state is VmState.SHUT_OFF)
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT


async def test_define_refuses_what_the_metadata_may_not_be(bench: QemuBench) -> None:
    machine = Machine(vni="99999999")
    with pytest.raises(Refusal, match="vni"):
        bench.hand().define(definition(machine))
    with pytest.raises(Refusal, match="tenant"):
        bench.hand().define(definition(machine).model_copy(update={"tenant": ""}))
    assert await bench.source.get(machine.vm_id) is None


async def test_the_doctor_leaves_a_running_agent_alone(bench: QemuBench) -> None:
    text = f"""
        server_id = "host-1"
        management_address = "127.0.0.1"
        vtep_address = "127.0.0.1"
        vcenter = ["127.0.0.1:1"]
        plaintext = true
        state_dir = "{bench.roots[1].parent}"
        hypervisor = "qemu"
        network = "memory"
        migration_uri = "{bench.destination_uri}"
        qemu = {{guests = "{bench.roots[1]}"}}"""
    findings = await doctor.examine(parse(text, AgentConfig), SystemClock())
    assert doctor.is_fit(findings), findings
    assert "QEMU" in next(f.text for f in findings if f.name == "connection")
    machine = Machine()
    bench.hand(there=True).define(definition(machine))
    await event(bench.destination, machine.vm_id)


async def test_a_change_of_size_waits_for_the_next_start(bench: QemuBench) -> None:
    machine = Machine()
    await bench.create(machine)
    hand = bench.hand()
    assert await hand.change(machine.name, 2, 160)
    assert (await hand.show(machine.name)).note
    now = await bench.source.get(machine.vm_id)
    await hand.stop(machine.name, within=0)
    await hand.start(machine.name)
    after = await bench.source.get(machine.vm_id)
    assert now is not None and after is not None
    assert (now.vm.resources.vcpus, now.vm.resources.memory_mib) == (1, 128)
    assert (after.vm.resources.vcpus, after.vm.resources.memory_mib) == (2, 160)
    assert not await hand.change(machine.name, 2, None)


async def test_a_snapshot_is_in_the_disk_and_needs_one(bench: QemuBench) -> None:
    machine = Machine(memory_mib=32)
    disk = bench.roots[0].parent / "disk.qcow2"
    bench.make_image(disk)
    plain = definition(machine)
    hand = bench.hand()
    hand.define(plain)
    await hand.start(machine.name)
    with pytest.raises(Refusal, match="qcow2"):
        await hand.snapshot(machine.name, "one")
    await hand.stop(machine.name, within=0)
    hand.define(plain.model_copy(update={"disk": (DiskSection(path=disk),)}))
    await hand.start(machine.name)
    await hand.snapshot(machine.name, "one")
    assert (await hand.show(machine.name)).state == "running"
    await hand.stop(machine.name, within=0)
    assert "one" in bench.snapshots(disk)


def _runs(state: VmState) -> bool:
    return state is VmState.RUNNING
