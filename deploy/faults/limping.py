"""Who takes a VM's disks, made slow: so that a moment in the middle of their copying can be met."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from deploy.lab import Host, netns

_NAME = b"qemu-storage-daemon"
_GOES, _STANDS = 0.005, 0.05  # seconds, in turn


def receivers(host: Host) -> list[int]:
    """The processes on this host that take disks."""
    return [pid for pid in sorted(netns.pids(host.netns)) if _program(pid) == _NAME]


def _program(pid: int) -> bytes:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return b""
    return argv[0].rpartition(b"/")[2]


class Limping:
    """Those of one host go a step and stand still for ten, from when they are there until `freed`;
    once `held` they stand still."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._over, self._held = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._limp, name="limping")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def held(self) -> None:
        self._held.set()

    def freed(self) -> None:
        self._over.set()
        self._thread.join()
        self._tell(signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        self.freed()

    def _limp(self) -> None:
        while not self._over.is_set():
            self._tell(signal.SIGSTOP)
            self._over.wait(_STANDS)
            if not self._held.is_set():
                self._tell(signal.SIGCONT)
                self._over.wait(_GOES)

    def _tell(self, what: signal.Signals) -> None:
        for pid in receivers(self._host):
            with suppress(ProcessLookupError):
                os.kill(pid, what)
