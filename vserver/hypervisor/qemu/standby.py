"""Standbys of `qemu` hosts: mirror jobs that are never finished, and a receiver at the other end.

Marks in a guest's folder: `standby`, where its copy is, from before its first file until it is
adopted; `mirrored`, where it runs. While the copy is no guest's there is no definition beside it,
so that nobody starts it by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from common.model.disk import Disk
from vserver.hypervisor.qemu import disks as own_disks
from vserver.hypervisor.qemu import mirror
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.home import MIRRORED, STANDBY, Home
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.watched import Watched
from vserver.hypervisor.qemu.wire import Address
from vserver.hypervisor.receiver import Image, Receiver
from vserver.hypervisor.standby import Mirrored, not_kept


@dataclass(frozen=True, slots=True)
class QemuStandbys:
    """`Standbys` of one host, whose address for copies is `address`."""

    guests: Guests
    address: Address
    secrecy: Secrecy

    # ---- where the copy is ----

    async def receive(self, vm_id: str, disks: Sequence[Disk]) -> int:
        home = self._home(vm_id)
        if home.has("definition.json"):
            raise refused(f"guest {vm_id} is defined here")
        await self._receiver(home).stop()
        with home.alone():
            await asyncio.to_thread(home.mark, STANDBY)
        await asyncio.to_thread(own_disks.clear, home)
        await own_disks.make(home, disks)
        files = enumerate(disks)
        images = [Image(number, home.file(disk.path), disk.format) for number, disk in files]
        return await self._receiver(home).start(images)

    async def adopt(self, vm_id: str, definition: bytes, disks: Sequence[Disk]) -> None:
        home = self._home(vm_id)
        if not home.has(STANDBY):
            if home.has("definition.json"):
                return
            raise not_kept(vm_id)
        defined = _defined(vm_id, definition)
        await self._receiver(home).stop()
        with home.alone():
            if missing := [disk.path for disk in disks if not home.has(disk.path)]:
                raise refused(f"{home.file(missing[0])} is not there")
            await asyncio.to_thread(home.define, defined)
            own_disks.keep(home)
            home.unmark(STANDBY)
        self.guests.changed(vm_id)

    async def drop(self, vm_id: str) -> None:
        home = self._home(vm_id)
        if not home.has(STANDBY):
            return
        await self._receiver(home).stop()
        with home.alone():
            home.file("definition.json").unlink(missing_ok=True)
            await asyncio.to_thread(own_disks.clear, home)
            home.unmark(STANDBY)
            await asyncio.to_thread(home.fold)

    # ---- where the guest runs ----

    async def mirror(self, vm_id: str, uri: str, port: int, disks: Sequence[Disk]) -> bytes:
        address = Address.parse(uri)
        self.secrecy.dial(address)  # refused where the two ends are not of one mind
        watched = await self._running(vm_id)
        home, monitor = watched.home, watched.monitor
        launch = await asyncio.to_thread(home.launch)
        definition = await asyncio.to_thread(home.definition)
        if launch is None or definition is None:
            raise refused(f"nobody knows what guest {vm_id} is")
        numbers = own_disks.numbers(launch.definition, disks)
        await mirror.end(monitor, self.guests.clock, force=True)
        await asyncio.to_thread(home.mark, MIRRORED)
        await self.secrecy.sends(monitor, address)
        mirrors = mirror.Mirrors(monitor, self.guests.clock, numbers, mirror.SYNCHRONOUS)
        exports = range(len(numbers))
        await mirrors.begin(address, port, self.secrecy.credentials, exports)
        return definition.model_dump_json().encode()

    async def mirrored(self, vm_id: str) -> Mirrored | None:
        if not await self.guests.runs(vm_id):
            return None
        watched = await self._running(vm_id)
        total, done, in_step = await mirror.seen(watched.monitor)
        return Mirrored(total, done, in_step)

    async def unmirror(self, vm_id: str) -> None:
        watched = await self.guests.watched(vm_id)
        if watched is not None:
            await mirror.end(watched.monitor, self.guests.clock, force=True)
        home = self._home(vm_id)
        if home.has(MIRRORED):
            home.unmark(MIRRORED)

    async def kept(self) -> Collection[str]:
        return await asyncio.to_thread(self._kept)

    def _kept(self) -> list[str]:
        homes = self.guests.homes.all()
        return [home.vm_id for home in homes if home.has(STANDBY) or home.has(MIRRORED)]

    def _home(self, vm_id: str) -> Home:
        return self.guests.homes.of(vm_id)

    def _receiver(self, home: Home) -> Receiver:
        return Receiver(home.file("receiver"), self.address.host, self.secrecy.pki)

    async def _running(self, vm_id: str) -> Watched:
        watched = await self.guests.watched(vm_id)
        if watched is None:
            raise refused(f"guest {vm_id} does not run here")
        return watched


def _defined(vm_id: str, definition: bytes) -> Definition:
    try:
        defined = Definition.model_validate_json(definition)
    except ValidationError as error:
        raise refused(f"not a guest: {error.errors()[0]['msg']}") from error
    if defined.uuid != vm_id:
        raise refused(f"that is guest {defined.uuid}, not {vm_id}")
    return defined
