"""A connection to libvirtd that outlives libvirtd.

Every call blocks, so each runs in a worker thread of this connection's own: a hung libvirtd uses
up its own threads, not the agent's. Copies take minutes and have threads of their own, so that
they can be watched and stopped. Keepalive finds a libvirtd that hangs; its end wakes the keeper,
which connects again with growing pauses and then reports that everything may have changed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import libvirt

from common.clock import Clock
from common.errors import Reason, Refusal
from vserver.hypervisor.libvirt import event_thread, subscription
from vserver.hypervisor.libvirt.failures import failed, guarded
from vserver.hypervisor.libvirt.waiting import within

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PATIENCE = 15.0
_CALLS, _COPIES = 8, 8
_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES = 5, 3
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Connection:
    """`on_event(vm_id, what)` comes in the event loop's thread; ("", …) after a reconnect."""

    def __init__(self, uri: str, clock: Clock, on_event: Callable[[str, subscription.What], None]):
        self.uri = uri
        self._clock = clock
        self._on_event = on_event
        self._lost = asyncio.Event()
        self._conn: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._calls = ThreadPoolExecutor(_CALLS, "libvirt-call")
        self._copies = ThreadPoolExecutor(_COPIES, "libvirt-copy")

    async def open(self) -> None:
        """Connect, or say why not."""
        event_thread.ensure_running()
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name=f"libvirt keeper {self.uri}")

    async def close(self) -> None:
        """Let go. Threads that still wait for libvirtd end when the connection does."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._conn is not None:
            await self._drop()
        for pool in (self._calls, self._copies):
            pool.shutdown(wait=False, cancel_futures=True)

    async def call(self, work: Callable[[Any], T], *, patience: float = _PATIENCE) -> T:
        """Run `work(connection)` in a thread; TimeoutError means that its outcome is unknown."""
        return await within(self._clock, patience, self._start(self._calls, work))

    def copy(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """Start work of unknown length; keepalive is what ends it if libvirtd hangs."""
        return self._start(self._copies, work)

    def _start(self, pool: Executor, work: Callable[[Any], T]) -> asyncio.Future[T]:
        if self._conn is None:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"libvirtd at {self.uri} does not answer")
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(pool, partial(guarded, work, self._conn))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._calls, self._opened, loop)
        try:
            self._conn = await within(self._clock, _PATIENCE, opening)
        except libvirt.libvirtError as error:
            raise failed(error) from error
        except (TimeoutError, asyncio.CancelledError):
            opening.add_done_callback(_close_late)
            raise

    def _opened(self, loop: asyncio.AbstractEventLoop) -> Any:
        conn = libvirt.open(self.uri)
        try:
            conn.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES)
            subscription.subscribe(conn, loop, self._on_event, lambda: self._lose(conn))
        except BaseException:
            conn.close()
            raise
        return conn

    def _lose(self, conn: Any) -> None:
        """It may end before it is ours, or be reported when there is a newer one already."""
        if self._conn is None or conn is self._conn:
            self._lost.set()

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            _log.warning("lost libvirtd at %s", self.uri)
            await self._drop()
            await self._reconnect()
            _log.info("libvirtd at %s is back", self.uri)
            self._on_event("", subscription.What.ANY)

    async def _reconnect(self) -> None:
        attempt = 0
        while self._conn is None:
            await self._clock.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
            try:
                await self._connect()
            except (Refusal, TimeoutError) as error:
                _log.debug("libvirtd at %s: %s", self.uri, error)

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(self._calls, subscription.unsubscribe_and_close, conn)
        try:
            await within(self._clock, _PATIENCE, closing)
        except TimeoutError:
            _log.warning("the connection to %s does not close", self.uri)


def _close_late(opening: asyncio.Future[Any]) -> None:
    """Nobody waits for this connection any more; it is refused, not leaked."""
    if not opening.cancelled() and opening.exception() is None:
        threading.Thread(
            target=subscription.unsubscribe_and_close, args=(opening.result(),), daemon=True
        ).start()
