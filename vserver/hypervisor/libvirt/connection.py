"""A connection to libvirtd that outlives libvirtd.

Every call blocks, so each runs in a worker thread of this connection's own: a hung libvirtd uses
up its own threads, not the agent's. Copies take minutes and have a thread each, so that they can
be watched and stopped, and do not keep the agent from ending. One line only listens for events;
its end wakes the keeper, which connects again with growing pauses, or at once when a call is
wanted, and then reports that everything may have changed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

import libvirt

from common.clock import Clock
from common.errors import Reason, Refusal
from common.wake import Bell, Wake, first_of
from vserver.hypervisor.libvirt import event_thread, subscription
from vserver.hypervisor.libvirt.failures import failed
from vserver.hypervisor.libvirt.lines import Lines, open_line
from vserver.hypervisor.libvirt.waiting import within

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PATIENCE = 15.0
_CALLS = 8
_PATIENCE_FOR_RETURN = 3.0  # of a call that finds no libvirtd: it may be back already
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Connection:
    """`on_event(vm_id, what)` comes in the event loop's thread; ("", …) after a reconnect. So does
    `on_copied(vm_id, stats)`, with the last figures of a copy from here."""

    def __init__(
        self,
        uri: str,
        clock: Clock,
        on_event: Callable[[str, subscription.What], None],
        on_copied: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.uri = uri
        self._clock = clock
        self._on_event = on_event
        self._on_copied = on_copied
        self._lost = asyncio.Event()
        self._wanted, self._tried = Wake(clock), Bell()
        self._listening: Any = None
        self._lines: Lines | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._calls = ThreadPoolExecutor(_CALLS, "libvirt-call")

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
            self._keeper = None
        await self._drop()
        self._calls.shutdown(wait=False, cancel_futures=True)

    async def call(self, work: Callable[[Any], T], *, patience: float = _PATIENCE) -> T:
        """Run `work(connection)` in a thread; TimeoutError means that its outcome is unknown."""
        if self._lines is None and self._keeper:
            await self._tried_now()
        doing = self._in_pool(partial(self._open_lines().run, work))
        return await within(self._clock, patience, doing)

    def copy(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """Start work of unknown length; keepalive is what ends it if libvirtd hangs."""
        return self._open_lines().run_alone(work)

    async def _tried_now(self) -> None:
        """The keeper rests between its attempts: it makes one, and finds what has returned."""
        self._wanted.ring()
        await first_of(self._tried.next(), self._clock.sleep(_PATIENCE_FOR_RETURN))

    def _in_pool(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._calls, work)

    def _open_lines(self) -> Lines:
        if self._lines is None:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"libvirtd at {self.uri} does not answer")
        return self._lines

    async def _connect(self) -> None:
        opening = self._in_pool(partial(self._opened, asyncio.get_running_loop()))
        try:
            self._listening = await within(self._clock, _PATIENCE, opening)
        except libvirt.libvirtError as error:
            raise failed(error) from error
        except (TimeoutError, asyncio.CancelledError):
            opening.add_done_callback(_close_late)
            raise
        self._lines = Lines(self.uri)

    def _opened(self, loop: asyncio.AbstractEventLoop) -> Any:
        conn = open_line(self.uri)
        try:
            subscription.subscribe(
                conn, loop, self._on_event, self._on_copied, lambda: self._lose(conn)
            )
        except BaseException:
            subscription.unsubscribe_and_close(conn)
            raise
        return conn

    def _lose(self, conn: Any) -> None:
        """It may end before it is ours, or be reported when there is a newer one already."""
        if self._listening is None or self._listening is conn:
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
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            await self._wanted.heard(pause)
            try:
                await self._connect()
            except (Refusal, TimeoutError) as error:
                _log.debug("libvirtd at %s: %s", self.uri, error)
            self._tried.ring()
            if self._lines is not None:
                return

    async def _drop(self) -> None:
        lines, self._lines = self._lines, None
        conn, self._listening = self._listening, None
        if lines is None:
            return
        for release in (lines.close, partial(subscription.unsubscribe_and_close, conn)):
            try:
                await within(self._clock, _PATIENCE, self._in_pool(release))
            except TimeoutError:
                _log.warning("a connection to %s does not close", self.uri)


def _close_late(opening: asyncio.Future[Any]) -> None:
    """Nobody waits for this connection any more; it is closed, not leaked."""
    if not opening.cancelled() and opening.exception() is None:
        release = partial(subscription.unsubscribe_and_close, opening.result())
        threading.Thread(target=release, daemon=True).start()
