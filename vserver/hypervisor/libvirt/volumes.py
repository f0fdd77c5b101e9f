"""Disks as libvirt's volumes: made for a VM that arrives, removed where it has left.

Only in the directories that the host's operator gave to the agent (`libvirt.disks`), and through
libvirtd, so that it is its storage that is looked at. What is made for an arrival is noted before
it is there, until the VM runs: so it is found and removed when the VM does not come, and a file
that was there before never is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from common.errors import Reason, Refusal
from common.model.disk import Disk
from common.secrets import write_private
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.domains import find
from vserver.hypervisor.libvirt.failures import has_code
from vserver.hypervisor.metadata import parse

_PATIENCE = 60.0
_POOL = "vsignal-disks-{}"


@dataclass(frozen=True, slots=True)
class Storage:
    """`directories`: where disks are the agent's to make and to remove. `notes`: a directory of
    its own, for what it has made."""

    directories: Sequence[Path]
    notes: Path


class Volumes:
    def __init__(self, connection: Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage

    async def make(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """Empty ones; those that were made for this VM already stay."""
        directories = [str(directory) for directory in self._storage.directories]
        for disk in disks:
            text = disk.problem
            if str(Path(disk.path).parent) not in directories:
                text = f"{disk.path} is in none of the directories of libvirt.disks"
            if text:
                raise Refusal(Reason.HYPERVISOR_FAILED, text)
        made = await asyncio.to_thread(self._noted, vm_id)
        fresh = [disk for disk in disks if disk.path not in made]
        if taken := await self._call(partial(_there, paths=[disk.path for disk in fresh])):
            raise Refusal(Reason.HYPERVISOR_FAILED, f"{taken[0]} is there already")
        await asyncio.to_thread(self._note, vm_id, [*made, *(disk.path for disk in fresh)])
        await self._call(partial(_make, disks=disks))

    async def keep(self, vm_id: str) -> None:
        """What was made is the VM's from now on."""
        await asyncio.to_thread(self._file(vm_id).unlink, missing_ok=True)

    async def clear(self, vm_id: str) -> None:
        """The VM does not come: what was made for it goes."""
        if made := await asyncio.to_thread(self._noted, vm_id):
            await self._call(partial(_remove, paths=made))
            await self.keep(vm_id)

    async def drop(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """The VM lives elsewhere, with copies. What another VM has, or lies elsewhere, stays."""
        directories = [str(directory) for directory in self._storage.directories]
        paths = [disk.path for disk in disks if str(Path(disk.path).parent) in directories]
        await self._call(partial(_drop, vm_id=vm_id, paths=paths))

    def beside(self, vm_id: str, name: str) -> Path:
        """A file of ours, beside the note of what was made for this VM."""
        return self._storage.notes / f"{vm_id}.{name}"

    def notes(self, vm_id: str) -> bool:
        """Whether anything was made for it that is not its own yet."""
        return self._file(vm_id).exists()

    async def _call(self, work: Any) -> Any:
        return await self._connection.call(work, patience=_PATIENCE)

    def _file(self, vm_id: str) -> Path:
        return self._storage.notes / f"{vm_id}.json"

    def _noted(self, vm_id: str) -> list[str]:
        try:
            return [str(path) for path in json.loads(self._file(vm_id).read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            text = f"{self._file(vm_id)} cannot be used: {error}"
            raise Refusal(Reason.HYPERVISOR_FAILED, text) from error

    def _note(self, vm_id: str, paths: Sequence[str]) -> None:
        self._storage.notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._file(vm_id), json.dumps(paths).encode())


def _there(conn: Any, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if _volume(_pool(conn, Path(path).parent), path) is not None]


def _make(conn: Any, disks: Sequence[Disk]) -> None:
    for disk in disks:
        pool = _pool(conn, Path(disk.path).parent)
        if _volume(pool, disk.path) is not None:
            continue
        free = pool.info()[3]
        if disk.used > free:
            text = f"{disk.path} takes {disk.used} bytes, its storage has {free} left"
            raise Refusal(Reason.NO_CAPACITY, text)
        pool.createXML(_volume_xml(disk))


def _remove(conn: Any, paths: Sequence[str]) -> None:
    for path in paths:
        volume = _volume(_pool(conn, Path(path).parent), path)
        if volume is not None:
            volume.delete()


def _drop(conn: Any, vm_id: str, paths: Sequence[str]) -> None:
    here = find(conn, vm_id)
    if here is not None and here.isActive() == 1:
        text = f"VM {vm_id} is on here; its disks are not removed"
        raise Refusal(Reason.HYPERVISOR_FAILED, text)
    used = _used_by_others(conn, vm_id)
    _remove(conn, [path for path in paths if path not in used])


def _used_by_others(conn: Any, vm_id: str) -> Collection[str]:
    """In any way: as a disk, shared or not, or below one."""
    others = (domain for domain in conn.listAllDomains() if domain.UUIDString() != vm_id)
    roots = [parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) for domain in others]
    return {s.get("file", "") for root in roots for s in root.iterfind("devices/disk//source")}


def _pool(conn: Any, directory: Path) -> Any:
    """libvirt's pool of this directory; one that lasts as long as libvirtd, if there is none."""
    try:
        pool = conn.storagePoolLookupByTargetPath(str(directory))
        if not pool.isActive():
            pool.create()
    except libvirt.libvirtError as error:
        if not has_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
            raise
        build = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD  # the directory, where there is none
        pool = conn.storagePoolCreateXML(_pool_xml(directory), build)
    pool.refresh()
    return pool


def _pool_xml(directory: Path) -> str:
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = _POOL.format(str(directory).strip("/").replace("/", "-"))
    ET.SubElement(ET.SubElement(root, "target"), "path").text = str(directory)
    return ET.tostring(root, encoding="unicode")


def _volume(pool: Any, path: str) -> Any:
    try:
        return pool.storageVolLookupByName(Path(path).name)
    except libvirt.libvirtError as error:
        if has_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return None
        raise


def _volume_xml(disk: Disk) -> str:
    root = ET.Element("volume", type="file")
    ET.SubElement(root, "name").text = Path(disk.path).name
    ET.SubElement(root, "capacity", unit="bytes").text = str(disk.bytes)
    ET.SubElement(root, "allocation").text = "0"
    ET.SubElement(ET.SubElement(root, "target"), "format", type=disk.format)
    return ET.tostring(root, encoding="unicode")
