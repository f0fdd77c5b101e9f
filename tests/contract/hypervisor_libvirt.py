"""The bench on real hosts: two of the lab's, each with its own libvirtd and QEMU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.model.disk import Disk
from deploy.lab import Host, Lab
from deploy.lab.available import why_unavailable
from tests.contract import disk_images
from tests.contract.hypervisor_bench import BRIDGE, Machine
from vserver.hypervisor.libvirt.adaptor import LibvirtHypervisor
from vserver.hypervisor.libvirt.volumes import Storage

_VIRSH = {"start": "start", "stop": "destroy", "pause": "suspend", "undefine": "undefine"}


@contextmanager
def lab_or_skip() -> Iterator[Lab]:
    """Two hosts; where there can be none, skip, but in CI fail: green must mean that it ran."""
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"no real hosts in CI: {reason}")
        pytest.skip(f"no real hosts: {reason}")
    with Lab(hosts=2) as lab:
        for host in lab.hosts:
            host.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
            host.run(["ip", "link", "set", BRIDGE, "up"])
        yield lab


class LibvirtBench:
    kind = "libvirt"
    unreachable_uri = "qemu+tcp://10.0.0.77/system"

    def __init__(self, lab: Lab) -> None:
        self._here, self._there = lab.host(1), lab.host(2)
        self.source = _adaptor(self._here)
        self.destination = _adaptor(self._there)
        self.destination_uri = self._there.peer_uri

    async def create(self, machine: Machine, *, started: bool = True) -> None:
        file = self._here.work / "contract.xml"
        file.write_text(machine.xml)
        await self._virsh(self._here, "define", str(file))
        if started:
            await self._virsh(self._here, "start", machine.vm_id)

    async def make_disk(self, machine: Machine, *, there: bool = False) -> Disk:
        machine.disk = f"/var/lib/libvirt/images/{machine.name}.qcow2"
        return await asyncio.to_thread(disk_images.make, self._image(machine, there), machine.disk)

    async def has_disk(self, machine: Machine, *, there: bool = False) -> bool | None:
        return await asyncio.to_thread(disk_images.has, self._image(machine, there))

    def _image(self, machine: Machine, there: bool) -> Path:
        """As it is seen from outside of the host."""
        host = self._there if there else self._here
        return host.work / "lib/images" / Path(machine.disk).name

    async def by_hand(self, action: str, vm_id: str, *, there: bool = False) -> None:
        host = self._there if there else self._here
        if action == "migrate":
            words = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource"]
            await self._virsh(host, *words, vm_id, self.destination_uri)
        else:
            await self._virsh(host, _VIRSH[action], vm_id)

    async def copy_slowly(self, vm_id: str) -> None:
        await self._virsh(self._here, "migrate-setspeed", vm_id, "1")

    async def restart_daemon(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        await asyncio.to_thread(self._here.kill9_libvirtd)
        try:
            await meanwhile()
        finally:
            await asyncio.to_thread(self._here.start_libvirtd)

    async def restart_agent(self) -> None:
        await self.destination.close()
        self.destination = _adaptor(self._there)
        await self.destination.open()

    async def _virsh(self, host: Host, *words: str) -> str:
        return await asyncio.to_thread(host.virsh, *words)

    async def clean(self) -> None:
        for host in (self._here, self._there):
            for name in (await self._virsh(host, "list", "--all", "--name")).split():
                await asyncio.to_thread(host.virsh, "destroy", name, check=False)
                await asyncio.to_thread(host.virsh, "undefine", name, check=False)


def _adaptor(host: Host) -> LibvirtHypervisor:
    storage = Storage([Path("/var/lib/libvirt/images")], host.work / "made-disks")
    asked = host.work / "copies"
    return LibvirtHypervisor(host.libvirt_uri, SystemClock(), asked, storage=storage)


@asynccontextmanager
async def libvirt_bench(lab: Lab) -> AsyncIterator[LibvirtBench]:
    bench = LibvirtBench(lab)
    await bench.source.open()
    await bench.destination.open()
    try:
        yield bench
    finally:
        await bench.source.close()
        await bench.destination.close()
        await bench.clean()
