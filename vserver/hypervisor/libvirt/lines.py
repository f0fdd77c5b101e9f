"""Connections to one libvirtd, each used by one thread at a time.

libvirt allows several threads on a connection, but its client (9.0 at least) can lose a wake-up
when one thread sends while another waits: the request then lies there until the next keepalive.
Behind a copy's call, which lasts as long as the copy, an abort was seen to take until the copy's
end. Also, a connection may only be closed when no thread is inside. A line each solves both.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import libvirt

from vserver.hypervisor.libvirt.failures import guarded, is_alive

T = TypeVar("T")

_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES = 5, 3


def open_line(uri: str) -> Any:
    """A connection that notices when libvirtd hangs. Blocks."""
    conn = libvirt.open(uri)
    conn.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES)
    return conn


class Lines:
    """Kept open between calls, for opening takes milliseconds that a guest's blackout has not."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._closed = False

    def run(self, work: Callable[[Any], T]) -> T:
        """Do it in this thread, on a line of its own."""
        conn = self._take()
        try:
            return guarded(work, conn)
        finally:
            self._give_back(conn)

    def run_alone(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """Do it in a thread of its own, which does not keep the process from ending."""
        done: Future[T] = Future()
        threading.Thread(target=self._fulfil, args=(done, work), daemon=True).start()
        return asyncio.wrap_future(done)

    def close(self) -> None:
        """Idle lines now, busy ones when their call is through. Blocks."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for conn in idle:
            _close(conn)

    def _take(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return open_line(self._uri)
        except libvirt.libvirtError as error:
            raise TimeoutError(f"libvirtd does not answer: {error}") from error

    def _give_back(self, conn: Any) -> None:
        usable = is_alive(conn)
        with self._lock:
            keep = usable and not self._closed
            if keep:
                self._idle.append(conn)
        if not keep:
            _close(conn)

    def _fulfil(self, done: Future[T], work: Callable[[Any], T]) -> None:
        done.set_running_or_notify_cancel()
        try:
            result = self.run(work)
        except BaseException as error:  # noqa: BLE001 - it is handed over, not swallowed
            done.set_exception(error)
        else:
            done.set_result(result)


def _close(conn: Any) -> None:
    with suppress(libvirt.libvirtError):
        conn.close()
