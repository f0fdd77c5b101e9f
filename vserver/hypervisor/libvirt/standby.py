"""Standbys of `libvirt` hosts: block copies that are never finished, to a receiver over there.

Only where the agent may write the files that libvirtd makes for it. What is kept is noted in a
directory of ours, and nothing is defined in libvirtd before it is adopted: nobody starts a copy by
hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.model.disk import Disk
from common.model.identity import parse_vm_id
from vserver.hypervisor import sender
from vserver.hypervisor.libvirt import block_copy
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.volumes import Volumes
from vserver.hypervisor.receiver import Image, Receiver
from vserver.hypervisor.standby import Mirrored, not_kept

_PATIENCE = 60.0
_TAKEN, _MIRRORED = "taken", "mirrored"


@dataclass(frozen=True, slots=True)
class Reception:
    """`notes`: a directory of ours. `host`: this host's address for copies; `pki`: its certificate
    for them, or None: they travel in clear."""

    notes: Path
    host: str
    pki: Path | None


@dataclass(frozen=True, slots=True)
class LibvirtStandbys:
    """`Standbys` of one host."""

    connection: Connection
    volumes: Volumes
    reception: Reception

    # ---- where the copy is ----

    async def receive(self, vm_id: str, disks: Sequence[Disk]) -> int:
        folder = self._folder(vm_id)
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(folder.joinpath(_TAKEN).touch)
        await self._receiver(vm_id).stop()
        await self.volumes.clear(vm_id)
        await self.volumes.make(vm_id, disks)
        images = [Image(n, Path(disk.path), disk.format) for n, disk in enumerate(disks)]
        return await self._receiver(vm_id).start(images)

    async def adopt(self, vm_id: str, definition: bytes, disks: Sequence[Disk]) -> None:
        if not await asyncio.to_thread(self._folder(vm_id).joinpath(_TAKEN).exists):
            is_defined = partial(block_copy.is_defined, vm_id=vm_id)
            if await self.connection.call(is_defined, patience=_PATIENCE):
                return
            raise not_kept(vm_id)
        await self._receiver(vm_id).stop()
        await self.volumes.keep(vm_id)
        await self.connection.call(
            partial(block_copy.define, vm_id=vm_id, xml=definition.decode()), patience=_PATIENCE
        )
        await self._forget(vm_id, _TAKEN)

    async def drop(self, vm_id: str) -> None:
        if not self._folder(vm_id).joinpath(_TAKEN).exists():
            return
        await self._receiver(vm_id).stop()
        await self.volumes.clear(vm_id)
        await self._forget(vm_id, _TAKEN)

    # ---- where the VM runs ----

    async def mirror(self, vm_id: str, uri: str, port: int, disks: Sequence[Disk]) -> bytes:
        to = sender.Target.of(uri, port, encrypt=self.reception.pki is not None)
        folder = self._folder(vm_id)
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(folder.joinpath(_MIRRORED).touch)
        begin = partial(block_copy.begin, vm_id=vm_id, to=to, disks=disks)
        return (await self.connection.call(begin, patience=_PATIENCE)).encode()

    async def mirrored(self, vm_id: str) -> Mirrored | None:
        return await self.connection.call(partial(block_copy.seen, vm_id=vm_id))

    async def unmirror(self, vm_id: str) -> None:
        await self.connection.call(partial(block_copy.end, vm_id=vm_id), patience=_PATIENCE)
        await self._forget(vm_id, _MIRRORED)

    async def kept(self) -> Collection[str]:
        return await asyncio.to_thread(self._kept)

    def _kept(self) -> list[str]:
        try:
            return sorted(folder.name for folder in self.reception.notes.iterdir())
        except FileNotFoundError:
            return []

    async def _forget(self, vm_id: str, mark: str) -> None:
        folder = self._folder(vm_id)
        await asyncio.to_thread(folder.joinpath(mark).unlink, missing_ok=True)
        with suppress(OSError):  # the other mark is there
            await asyncio.to_thread(folder.rmdir)

    def _folder(self, vm_id: str) -> Path:
        return self.reception.notes / parse_vm_id(vm_id)

    def _receiver(self, vm_id: str) -> Receiver:
        reception = self.reception
        return Receiver(self._folder(vm_id) / "receiver", reception.host, reception.pki)
