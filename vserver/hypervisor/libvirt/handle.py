"""One libvirt connection, closed once nobody uses it any more.

libvirt frees a connection when it is closed, also under a thread that is in the middle of a call.
So whoever closes only says so, and the last call that is through does it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from vserver.hypervisor.libvirt import subscription
from vserver.hypervisor.libvirt.failures import guarded

T = TypeVar("T")


class Handle:
    """Used from any thread."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._lock = threading.Lock()
        self._users = 1  # the first is whoever opened it

    def run(self, work: Callable[[Any], T]) -> T:
        """Do it in this thread."""
        with self._lock:
            if not self._users:
                raise TimeoutError("the connection to libvirtd was closed before the call")
            self._users += 1
        try:
            return guarded(work, self._conn)
        finally:
            self.release()

    def release(self) -> None:
        """Its opener does so once; call it in a thread, for it may block."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            subscription.unsubscribe_and_close(self._conn)

    def run_alone(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """Do it in a thread of its own, which does not keep the process from ending."""
        done: Future[T] = Future()
        thread = threading.Thread(target=self._fulfil, args=(done, work), daemon=True)
        thread.start()
        return asyncio.wrap_future(done)

    def _fulfil(self, done: Future[T], work: Callable[[Any], T]) -> None:
        done.set_running_or_notify_cancel()
        try:
            result = self.run(work)
        except BaseException as error:  # noqa: BLE001 - it is handed over, not swallowed
            done.set_exception(error)
        else:
            done.set_result(result)
