"""A guest's QEMU: started, found again after any restart of ours, and ended for good.

A process id alone may name a stranger; the pidfd pins the process, whose command line must then
name this guest's own directory. A process that has ended names nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import Reason, Refusal
from vserver.hypervisor.qemu.home import Home

_START_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Process:
    """`close` it."""

    pid: int
    pidfd: int

    def kill(self) -> None:
        """From here on no instruction of the guest runs; no process survives or handles it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        os.close(self.pidfd)


def find(home: Home) -> Process | None:
    """By the pid file: what tells quickly."""
    try:
        pid = int(home.file("pid").read_text())
    except (OSError, ValueError):
        return None
    return _take(pid, home)


def search(home: Home) -> Process | None:
    """Through all processes: what tells surely, whatever became of the pid file. It is mended."""
    if process := find(home):
        return process
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    found = next((process for pid in pids if (process := _take(pid, home))), None)
    if found:
        home.file("pid").write_text(str(found.pid))
    return found


def _take(pid: int, home: Home) -> Process | None:
    if not _is_of(pid, home):  # cheap; decided once more when the process is pinned
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if _is_of(pid, home):
        return Process(pid, pidfd)
    os.close(pidfd)
    return None


def _is_of(pid: int, home: Home) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(home.file("pid")).encode() in words and home.vm_id.encode() in words


async def start(argv: Sequence[str]) -> None:
    """Return when QEMU is ready and on its own, a child of nobody's; else refuse in its words."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"cannot run {argv[0]}: {error}") from error
    try:
        async with asyncio.timeout(_START_PATIENCE):
            _, words = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = words.decode(errors="replace").strip()[-2000:]
        raise Refusal(Reason.HYPERVISOR_FAILED, f"QEMU does not start: {text}")


async def ended(process: Process, patience: float = 10.0) -> None:
    """Return when the process is no more; its taps are gone then too. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    fd = os.dup(process.pidfd)  # another may watch the same
    loop.add_reader(fd, gone.set)
    try:
        async with asyncio.timeout(patience):
            await gone.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
