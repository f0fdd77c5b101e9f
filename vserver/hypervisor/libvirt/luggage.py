"""Disks of domains that are off: sent file by file, beside libvirt, to a receiver over there.

libvirt has no way to copy the disks of what does not run. The files are read and written by us, as
far as we may; libvirtd makes and removes them, and is the one who defines the domain over there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import Reason, Refusal
from common.model.disk import Disk
from vserver.hypervisor.libvirt.cold import refuse_if_bound
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.copy_plan import disk_targets
from vserver.hypervisor.libvirt.standby import Reception
from vserver.hypervisor.libvirt.volumes import Volumes
from vserver.hypervisor.port import Luggage
from vserver.hypervisor.receiver import Image, Receiver
from vserver.hypervisor.sender import Senders


class LibvirtLuggage:
    """What of a hand-over is not libvirt's, on one host."""

    def __init__(self, connection: Connection, volumes: Volumes, reception: Reception) -> None:
        self._connection = connection
        self._volumes = volumes
        self._reception = reception
        self._senders = Senders(reception.pki)

    # ---- where the VM comes to ----

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        await self._volumes.make(vm_id, disks)
        return await self._receiver(vm_id).serve(_images(disks))

    async def take_no_more(self, vm_id: str) -> None:
        if await asyncio.to_thread(self._volumes.notes, vm_id):
            await self._receiver(vm_id).stop()

    # ---- where it comes from ----

    async def send(self, vm_id: str, destination: str, luggage: Luggage) -> None:
        """The images' locks keep everybody from starting it; who did so just before or just after
        is noticed by what was written."""
        paths = [disk.path for disk in luggage.disks]
        await self._connection.call(partial(_refuse, vm_id=vm_id, disks=luggage.disks))
        before = await asyncio.to_thread(_written, paths)
        images = _images(luggage.disks)
        await self._senders.send(vm_id, images, destination, luggage.port, luggage.told)
        if before != await asyncio.to_thread(_written, paths):
            text = f"a disk of VM {vm_id} was written to while it was copied"
            raise Refusal(Reason.HYPERVISOR_FAILED, text)

    def abort(self, vm_id: str) -> None:
        self._senders.abort(vm_id)

    def _receiver(self, vm_id: str) -> Receiver:
        reception = self._reception
        return Receiver(self._volumes.beside(vm_id, "receiver"), reception.host, reception.pki)


def _images(disks: Sequence[Disk]) -> list[Image]:
    return [Image(n, Path(disk.path), disk.format) for n, disk in enumerate(disks)]


def _refuse(conn: Any, vm_id: str, disks: Sequence[Disk]) -> None:
    """What libvirt would refuse once the disks are over there, and a domain with other disks."""
    disk_targets(refuse_if_bound(conn, vm_id).XMLDesc(), disks)


def _written(paths: Sequence[str]) -> list[tuple[int, int, int]]:
    """A file's identity, and when it was written to last. Blocking."""
    facts = [Path(path).stat() for path in paths]
    return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in facts]
