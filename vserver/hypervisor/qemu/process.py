"""A guest's QEMU: started, found again after any restart of ours, and ended for good.

A process id alone may name a stranger; the pidfd pins the process, whose command line must then
name this guest's own directory. A process that has ended names nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection, Sequence
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

    def end(self) -> None:
        """It writes down what it has, and ends."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)

    def close(self) -> None:
        os.close(self.pidfd)


def find(home: Home) -> Process | None:
    """By the pid file: what tells quickly."""
    return _found(home.file("pid"), _words(home))


def search(home: Home) -> Process | None:
    """Through all processes: what tells surely, whatever became of the pid file. It is mended."""
    return searched(home.file("pid"), _words(home))


def searched(pid_file: Path, words: Collection[bytes]) -> Process | None:
    """The process with all of these in its command line, likewise."""
    if process := _found(pid_file, words):
        return process
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    found = next((process for pid in pids if (process := _take(pid, words))), None)
    if found:
        pid_file.write_text(str(found.pid))
    return found


def _words(home: Home) -> Collection[bytes]:
    return str(home.file("pid")).encode(), home.vm_id.encode()


def _found(pid_file: Path, words: Collection[bytes]) -> Process | None:
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return None
    return _take(pid, words)


def _take(pid: int, words: Collection[bytes]) -> Process | None:
    if not _has(pid, words):  # cheap; decided once more when the process is pinned
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if _has(pid, words):
        return Process(pid, pidfd)
    os.close(pidfd)
    return None


def _has(pid: int, words: Collection[bytes]) -> bool:
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(word in said for word in words)


async def start(argv: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
    """Return when QEMU is ready and on its own, a child of nobody's; else refuse in its words."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=pass_fds,
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
