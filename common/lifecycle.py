"""From start to stop of a daemon: signals, systemd, exit codes.

SIGTERM or SIGINT asks `main` to stop (it drains and returns); a second one cancels it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from common import log

OK = 0
FAILED = 1
BAD_CONFIG = 78  # EX_CONFIG of sysexits.h; systemd's RestartPreventExitStatus= may name it

_SET_DUMPABLE = 4  # of prctl(2)

_log = log.get(__name__)


class Daemon:
    """What `main` is handed: when to stop, and a way to say that it serves."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()

    def ready(self) -> None:
        """Tell systemd (Type=notify) that the daemon serves. Elsewhere it does nothing."""
        _notify("READY=1")

    def stop(self) -> None:
        if not self.stopping.is_set():
            _notify("STOPPING=1")
            self.stopping.set()


Main = Callable[[Daemon], Awaitable[None]]
Runner = Callable[[Coroutine[Any, Any, int]], int]


def run(main: Main, expected: tuple[type[Exception], ...] = (), on: Runner = asyncio.run) -> int:
    """Run a daemon to its end and return the process's exit code.

    `expected` failures say by themselves what to do; any other is a defect, and logged with its
    traceback. `on` is the event loop's `run`.
    """
    keep_memory_private()
    use_all_files()
    return on(_supervise(main, expected))


def keep_memory_private() -> None:
    """Keys and tokens are in it: no core of this process is written or piped to anybody, and nobody
    but root may look into it. What it starts, such as QEMU with a guest's memory, leaves no core
    file either."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def use_all_files() -> None:
    """As many open files as this process may have at all: the usual limit is that of programs that
    still use select(), and less than a thousand connections use it up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _supervise(main: Main, expected: tuple[type[Exception], ...]) -> int:
    daemon = Daemon()
    running = asyncio.ensure_future(main(daemon))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, daemon, running)
    try:
        await running
    except asyncio.CancelledError:
        if not daemon.stopping.is_set():
            raise
        _log.warning("stopped before draining was over")
    except expected as error:
        _log.error("cannot go on", error=str(error))
        return FAILED
    except Exception:  # noqa: BLE001 - the outermost frame: what ends a daemon is logged, always
        _log.exception("the daemon failed")
        return FAILED
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return OK


def _on_signal(number: signal.Signals, daemon: Daemon, running: asyncio.Future[None]) -> None:
    _log.info("stopping", signal=number.name, now=daemon.stopping.is_set())
    if daemon.stopping.is_set():
        running.cancel()
    daemon.stop()


def _notify(state: str) -> None:
    """sd_notify(3), which is one datagram; nobody listening is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(state.encode(), address)
