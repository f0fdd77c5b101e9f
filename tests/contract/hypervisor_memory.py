"""The bench without a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from common.clock import SystemClock
from common.model.disk import Disk
from tests.contract.hypervisor_bench import DISK_BYTES, Machine
from vserver.hypervisor.memory import MemoryFleet
from vserver.hypervisor.memory_disks import MemoryFile
from vserver.hypervisor.memory_speed import CopySpeed


class MemoryBench:
    kind = "memory"
    unreachable_uri = "memory://nowhere"

    def __init__(self) -> None:
        self.fleet = MemoryFleet(SystemClock(), CopySpeed(bytes_per_second=2e9, figures_after=0.1))
        self.source = self.fleet.host("one")
        self.destination = self.fleet.host("two")
        self.destination_uri = self.destination.migration_uri

    async def create(self, machine: Machine, *, started: bool = True) -> None:
        self.source.create_xml(machine.xml, started=started)

    async def make_disk(self, machine: Machine, *, there: bool = False) -> Disk:
        machine.disk = f"/disks/{machine.name}.qcow2"
        host = self.destination if there else self.source
        host.disks.files[machine.disk] = MemoryFile(DISK_BYTES, "written")
        return Disk(machine.disk, "qcow2", DISK_BYTES, DISK_BYTES)

    async def has_disk(self, machine: Machine, *, there: bool = False) -> bool | None:
        host = self.destination if there else self.source
        file = host.disks.files.get(machine.disk)
        return None if file is None else file.content.startswith("written")

    async def guest_writes(self, machine: Machine) -> None:
        self.source.write(machine.vm_id, machine.disk, "written, marked")

    async def has_written(self, machine: Machine, *, there: bool = False) -> bool:
        host = self.destination if there else self.source
        return host.disks.files[machine.disk].content.endswith("marked")

    async def by_hand(self, action: str, vm_id: str, *, there: bool = False) -> None:
        host = self.destination if there else self.source
        if action == "migrate":
            host.migrate_by_hand(vm_id, self.destination)
        else:
            getattr(host, action)(vm_id)

    async def copy_slowly(self, vm_id: str) -> None:
        self.fleet.speed = replace(self.fleet.speed, bytes_per_second=2e8)

    async def restart_daemon(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self.source.disconnect()
        await meanwhile()
        self.source.reconnect()

    async def restart_agent(self) -> None:
        await self.destination.close()
        await self.destination.open()


@asynccontextmanager
async def memory_bench() -> AsyncIterator[MemoryBench]:
    bench = MemoryBench()
    await bench.source.open()
    await bench.destination.open()
    try:
        yield bench
    finally:
        await bench.source.close()
        await bench.destination.close()
