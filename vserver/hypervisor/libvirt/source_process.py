"""Early proof that a copy's source will never run again.

libvirt's migrate call returns only when the source's QEMU has been ended *and* collected, which it
checks five times a second, while the guest stands still on both sides. What we wait for instead
is the process's own end, which the kernel tells at once (pidfd), together with libvirt's record,
written before it kills, that the destination has everything (phase `confirm3`: from there on
libvirt itself, restarted even, only ever ends the source). A process that ended in any other phase
has crashed, and proves nothing. Where the record cannot be read there is no early proof, and the
call's return is waited for.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

_SYSTEM = Path("/run/libvirt/qemu")
_CONFIRMED = "confirm3"


def record_directory(uri: str) -> Path | None:
    """Where the libvirtd behind this URI keeps its records; None if it is not on this host."""
    parts = urlsplit(uri)
    if parts.hostname or parts.scheme not in ("qemu", "qemu+unix") or parts.path != "/system":
        return None
    sockets = parse_qs(parts.query).get("socket")
    return Path(sockets[0]).parent / "qemu" if sockets else _SYSTEM


@dataclass(frozen=True, slots=True)
class SourceProcess:
    """The QEMU of one running domain. `close` it."""

    record: Path
    pidfd: int

    @classmethod
    def find(cls, directory: Path | None, name: str, vm_id: str) -> SourceProcess | None:
        """The process by libvirt's record, after a look at whether it is really this VM's."""
        if directory is None:
            return None
        record = directory / f"{name}.xml"
        try:
            pid = int(_read(record).get("pid", ""))
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, ET.ParseError):
            return None
        if _is_of(pid, vm_id):
            return cls(record, pidfd)
        os.close(pidfd)
        return None

    def close(self) -> None:
        os.close(self.pidfd)

    async def ended_for_good(self) -> None:
        """Return on proof; without it, never."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self.pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self.pidfd)
        if not await asyncio.to_thread(self._confirmed):
            await loop.create_future()

    def _confirmed(self) -> bool:
        try:
            job = _read(self.record).find("job")
        except (OSError, ET.ParseError):
            return False
        return job is not None and job.get("phase") == _CONFIRMED


def _read(record: Path) -> ET.Element:
    return ET.fromstring(record.read_bytes())


def _is_of(pid: int, vm_id: str) -> bool:
    """Process ids are used again; a QEMU bears its VM's id on its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return vm_id.encode() in words
