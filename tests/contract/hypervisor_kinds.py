"""The kinds of hosts that every hypervisor test has, and what such tests do all the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from common.model.operation import HostedState, MoveKind
from common.model.vm import VmState
from tests.contract.hypervisor_bench import PATIENCE, Bench, Machine, until
from tests.contract.hypervisor_memory import memory_bench
from vserver.hypervisor.port import Copied, CopyTerms, Hypervisor


@pytest.fixture(scope="module")
def labs() -> Iterator[ExitStack]:
    """Holds the lab, once a test has asked for it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["memory", "libvirt", "qemu"])
async def bench(
    request: pytest.FixtureRequest, labs: ExitStack, kept: dict[str, object]
) -> AsyncIterator[Bench]:
    if request.param == "memory":
        async with memory_bench() as without_machine:
            yield without_machine
        return
    if request.param == "qemu":
        from tests.contract.hypervisor_qemu import namespace, qemu_bench

        if "netns" not in kept:
            kept["netns"] = labs.enter_context(namespace())
        async with qemu_bench(str(kept["netns"])) as on_qemu:
            yield on_qemu
        return
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    from tests.contract.hypervisor_libvirt import lab_or_skip, libvirt_bench

    if "lab" not in kept:
        kept["lab"] = labs.enter_context(lab_or_skip())
    async with libvirt_bench(kept["lab"]) as on_hosts:
        yield on_hosts


@pytest.fixture(scope="module")
def kept() -> dict[str, object]:
    return {}


async def started(bench: Bench, machine: Machine) -> None:
    await bench.create(machine)
    await until(bench.source, machine.vm_id, lambda vm: vm is not None and bool(vm.taps[0].device))


async def state(hypervisor: Hypervisor, vm_id: str) -> VmState | None:
    found = await hypervisor.get(vm_id)
    return found.state if found else None


async def copied(bench: Bench, machine: Machine) -> Copied:
    uri, devices = bench.destination_uri, machine.devices
    await bench.destination.make_way(machine.vm_id)
    return await bench.source.migrate(machine.vm_id, uri, devices, lambda _: None)


async def copying(
    bench: Bench, machine: Machine, kind: MoveKind = MoveKind.LIVE, *, gated: bool = False
) -> asyncio.Task[Copied]:
    """A copy that has begun, and will take seconds."""
    await started(bench, machine)
    await bench.copy_slowly(machine.vm_id)
    await bench.destination.make_way(machine.vm_id)
    if gated:
        assert await bench.destination.hold(machine.vm_id)
    begun = asyncio.Event()
    task = asyncio.create_task(
        bench.source.migrate(
            machine.vm_id,
            bench.destination_uri,
            machine.devices,
            lambda _: begun.set(),
            CopyTerms(kind, gated=gated),
        )
    )
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    return task


async def runs_here_only(bench: Bench, vm_id: str) -> None:
    assert await state(bench.source, vm_id) is VmState.RUNNING
    assert await bench.source.hosted(vm_id) is HostedState.RUNNING
    await until(bench.destination, vm_id, lambda vm: vm is None)
    assert await bench.destination.hosted(vm_id) is HostedState.ABSENT
