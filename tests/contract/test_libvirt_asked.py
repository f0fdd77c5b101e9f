"""Copies that an agent asked libvirt for, and did not live to see the end of (real libvirtds)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from common.clock import Clock, SystemClock
from common.model.operation import HostedState
from deploy.lab import Host, Lab, netns
from tests.contract.hypervisor_bench import Machine
from tests.support.lab import QuickClock

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
from tests.contract.hypervisor_libvirt import lab_or_skip  # noqa: E402
from vserver.hypervisor.libvirt.adaptor import LibvirtHypervisor  # noqa: E402
from vserver.hypervisor.libvirt.notes import NoteFiles, Role  # noqa: E402

pytestmark = pytest.mark.timeout(180)
LIBVIRTD, DOOR = 16509, 16510


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip() as running:
        yield running


class Door:
    """Before a host's libvirtd: who knocks waits until it is opened."""

    def __init__(self, host: Host) -> None:
        self.uri = f"qemu+tcp://{host.address}:{DOOR}/system"
        self.knocked, self.opened = asyncio.Event(), asyncio.Event()
        self._host = host

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Door]:
        address = (self._host.address, DOOR)
        listener = netns.call_in(self._host.netns, lambda: socket.create_server(address))
        server = await asyncio.start_server(self._serve, sock=listener)
        try:
            yield self
        finally:
            self.opened.set()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocked.set()
        await self.opened.wait()
        inside = netns.call_in(self._host.netns, socket.socket)
        inside.connect((self._host.address, LIBVIRTD))
        there, back = await asyncio.open_connection(sock=inside)
        await asyncio.gather(_pass(reader, back), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def agent(host: Host, clock: Clock | None = None) -> AsyncIterator[LibvirtHypervisor]:
    asked = host.work / "copies"
    made = LibvirtHypervisor(host.libvirt_uri, clock or SystemClock(), asked)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    made, host = Machine(), lab.host(1)
    file = host.work / "asked.xml"
    file.write_text(made.xml)
    host.virsh("define", str(file))
    host.virsh("start", made.vm_id)
    yield made
    for each in lab.hosts:
        each.virsh("destroy", made.vm_id, check=False)
        each.virsh("undefine", made.vm_id, check=False)


@contextmanager
def standing_still(host: Host, machine: Machine) -> Iterator[None]:
    pid = int((host.work / f"run/qemu/{machine.name}.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def certainly_stopped(made: LibvirtHypervisor, vm_id: str) -> None:
    """As an agent does: it asks until it knows."""
    while True:
        with suppress(TimeoutError):
            await made.abort(vm_id)
            return


def stays(lab: Lab, machine: Machine) -> None:
    here, there = lab.hosts
    assert here.virsh("domstate", machine.vm_id).strip() == "running"
    assert "None" in here.virsh("domjobinfo", machine.vm_id)
    assert machine.name not in there.virsh("list", "--all", "--name").split()


async def test_a_copy_that_has_not_reached_its_destination_yet_is_waited_for(
    lab: Lab, machine: Machine
) -> None:
    here, there = lab.hosts
    async with Door(there).standing() as door:
        async with agent(here) as first:
            asking = first.migrate(machine.vm_id, door.uri, machine.devices, lambda _: None)
            copying = asyncio.create_task(asking)
            await door.knocked.wait()
        async with agent(here, QuickClock()) as second:  # its patience is over soon
            with pytest.raises(TimeoutError):
                await second.abort(machine.vm_id)
            door.opened.set()
            await certainly_stopped(second, machine.vm_id)
            stays(lab, machine)
            assert await second.hosted(machine.vm_id) is HostedState.RUNNING
        await asyncio.wait({copying})
    assert not list((here.work / "copies").iterdir())


async def test_a_copy_that_waits_for_its_turn_is_waited_for(lab: Lab, machine: Machine) -> None:
    """Somebody asks the guest's QEMU, which does not answer; then the copy is asked for."""
    here, there = lab.hosts
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    await note(here, machine)
    async with Door(there).standing() as door, agent(here) as second:
        with standing_still(here, machine):
            asking = in_thread(here, machine, lambda domain: domain.memoryStats())
            await asyncio.to_thread(until_busy, here, machine)
            copying = in_thread(here, machine, lambda d: d.migrateToURI3(door.uri, {}, flags))
            stopping = asyncio.create_task(certainly_stopped(second, machine.vm_id))
            await asyncio.wait({stopping}, timeout=0.5)
        door.opened.set()
        await stopping
        stays(lab, machine)
        await asking
        with pytest.raises(libvirt.libvirtError):
            await copying
        assert machine.name in here.virsh("list", "--name").split()


async def test_a_vm_that_is_being_handed_over_is_waited_for(lab: Lab, machine: Machine) -> None:
    """It is off; libvirt shows no job for it, and does not stop."""
    here, there = lab.hosts
    here.virsh("destroy", machine.vm_id)
    async with Door(there).standing() as door, agent(here) as second:
        async with agent(here) as first:
            giving = asyncio.create_task(first.hand_over(machine.vm_id, door.uri))
            await door.knocked.wait()
            giving.cancel()
            await asyncio.wait({giving})
        stopping = asyncio.create_task(second.abort(machine.vm_id))
        await asyncio.wait({stopping}, timeout=0.5)
        assert await second.keeps(machine.vm_id)
        assert not stopping.done() or isinstance(stopping.exception(), TimeoutError)
        door.opened.set()
        await asyncio.wait({stopping})
        await certainly_stopped(second, machine.vm_id)
        assert not await second.keeps(machine.vm_id)
    assert machine.name in there.virsh("list", "--all", "--name").split()


def in_thread(
    host: Host, machine: Machine, work: Callable[[Any], object]
) -> asyncio.Future[object]:
    """By somebody of his own."""
    domain = libvirt.open(host.libvirt_uri).lookupByUUIDString(machine.vm_id)
    return asyncio.get_running_loop().run_in_executor(None, work, domain)


def until_busy(host: Host, machine: Machine) -> None:
    while host.virsh("domcontrol", machine.vm_id).startswith("ok"):
        time.sleep(0.05)


async def note(host: Host, machine: Machine) -> None:
    """As an agent does before it asks for a copy."""
    await NoteFiles(host.work / "copies").write(machine.vm_id, Role.SOURCE)
