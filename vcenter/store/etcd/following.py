"""Hearing of what others commit: the log up to now, then etcd's watch, again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from common.clock import Clock
from common.pb.vsignal.v1 import storage_pb2
from vcenter.store.etcd.client import Forgotten, Refused, Unreachable
from vcenter.store.etcd.layout import entries_of
from vcenter.store.etcd.opened import Opened
from vcenter.store.etcd.watching import watched
from vcenter.store.port import Entry

log = structlog.get_logger()

_RESTART_S = 0.1

Reading = Callable[[int], AsyncIterator[Entry]]


class Following:
    def __init__(self, opened: Opened, read: Reading, clock: Clock) -> None:
        self._opened = opened
        self._read = read
        self._clock = clock
        self._call: Any = None

    async def after(self, revision: int) -> AsyncIterator[Entry]:
        """For ever. Raises `Compacted` when the log does not reach back so far."""
        opened, reached = self._opened, revision
        while True:
            try:
                head, at = await opened.log.head()
                opened.saw(head)  # first: whoever has heard of it must be able to go on from it
                async for entry in self._read(reached):
                    reached = entry.revision
                    yield entry
                async for run in self._watch(at + 1):
                    opened.saw(opened.log.ends(run))
                    for entry in entries_of(run):
                        if entry.revision > reached:
                            reached = entry.revision
                            yield entry
            except (Unreachable, Refused) as error:
                log.warning("the watch of etcd was cut", error=str(error))
            except Forgotten:
                log.info("etcd was compacted; the log has what the watch has not")
            await self._clock.sleep(_RESTART_S)

    def again(self) -> None:
        """The watch says nothing though there is something to say: try another member."""
        if self._call is not None:
            self._call.cancel()

    async def _watch(self, start: int) -> AsyncIterator[storage_pb2.LogRun]:
        opened = self._opened
        async for kv in watched(opened.client, opened.keys.logs, start, self._began):
            yield await opened.log.read(kv.value)

    def _began(self, call: Any) -> None:
        self._call = call
