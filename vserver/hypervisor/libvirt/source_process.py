"""Early proof that a copy's source will never run again.

libvirt's migrate call returns only when the source's QEMU has been ended *and* collected, which it
checks five times a second, while the guest stands still on both sides. The proof that we need is
there before: libvirt's record says that the destination has everything (phase `confirm3`: from
there on libvirt itself, restarted even, only ever ends the source). We end it then ourselves, by
a signal that no process survives or handles, sent through a pidfd that names no other process; the
guest's CPUs have stood still since before, and from the signal on no instruction of it runs. A
process that ended in any other phase has crashed, and proves nothing. Where the record cannot be
read there is no early proof, and the call's return is waited for.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

from common.clock import Clock

_SYSTEM = Path("/run/libvirt")
_PHASE = re.compile(rb"<job [^>]*phase=['\"](\w+)['\"]")
_ALL_SENT, _CONFIRMED = frozenset({b"perform3_done", b"confirm3"}), frozenset({b"confirm3"})
_LOOK_AGAIN = 0.001


def run_directory(uri: str) -> Path | None:
    """Where the libvirtd behind this URI keeps sockets and records; None: not on this host."""
    parts = urlsplit(uri)
    if parts.hostname or parts.scheme not in ("qemu", "qemu+unix") or parts.path != "/system":
        return None
    sockets = parse_qs(parts.query).get("socket")
    return Path(sockets[0]).parent if sockets else _SYSTEM


def record_directory(uri: str) -> Path | None:
    """Where it keeps what it knows of the domains that run; None: not on this host."""
    run = run_directory(uri)
    return run / "qemu" if run is not None else None


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

    async def all_sent(self, clock: Clock) -> None:
        """Return when the destination has been sent everything; it need not have it yet."""
        await self._phase(_ALL_SENT, clock)

    async def end_for_good(self, clock: Clock) -> None:
        """Return on proof; without it, never. The guest stands still already."""
        await self._phase(_CONFIRMED, clock)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    async def _phase(self, wanted: frozenset[bytes], clock: Clock) -> None:
        """libvirt replaces the record at each step. It lies in memory (/run), so looking whether
        it is a new one does not block, and a guest stands still meanwhile: hence no thread."""
        seen = None
        while True:
            with suppress(OSError):
                now = self.record.stat()
                if seen != (now.st_ino, now.st_mtime_ns):
                    seen = (now.st_ino, now.st_mtime_ns)
                    phase = _PHASE.search(self.record.read_bytes())
                    if phase and phase.group(1) in wanted:
                        return
            await clock.sleep(_LOOK_AGAIN)


def _read(record: Path) -> ET.Element:
    return ET.fromstring(record.read_bytes())


def _is_of(pid: int, vm_id: str) -> bool:
    """Process ids are used again; a QEMU bears its VM's id on its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return vm_id.encode() in words
