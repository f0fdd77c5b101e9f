"""A guest that runs, watched: its monitor's events, and its process's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from common.clock import Clock
from common.wake import Bell
from vserver.hypervisor.qemu.home import Home
from vserver.hypervisor.qemu.monitor import Monitor
from vserver.hypervisor.qemu.process import Process

OVER = "gone"  # what `migration` becomes when the process has ended


class Watched:
    """`on_change` at every event; `on_end` once. Both in the event loop."""

    def __init__(
        self, home: Home, process: Process, clock: Clock, on_change: Callable[[str], None],
        on_end: Callable[[Watched], None],
    ) -> None:  # fmt: skip
        self.home = home
        self.process = process
        self.monitor = Monitor()
        self.migration = ""  # the last status that an event named
        self.over = False
        self.stopped_at: float | None = None  # seconds of the clock: when it last stood still
        self.ran_at: float | None = None  # when it first went on since it is watched
        self._clock = clock
        self._news = Bell()
        self._on_change = on_change
        self._on_end = on_end
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises TimeoutError if the process is there but QEMU does not answer."""
        await self.monitor.connect(self.home.file("agent"), self.home.vm_id)
        asyncio.get_running_loop().add_reader(self.process.pidfd, self._ended)
        self._listening = asyncio.create_task(self._listen(), name=f"guest {self.home.vm_id}")

    async def close(self) -> None:
        """Let go; the guest runs on."""
        if not self.over:
            asyncio.get_running_loop().remove_reader(self.process.pidfd)
        if self._listening:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        await self.monitor.close()
        self.process.close()

    async def migration_in(self, statuses: Set[str]) -> str:
        """Wait for one of these, or for the end of the process."""
        while self.migration not in statuses and not self.over:
            await self._news.next()
        return OVER if self.over else self.migration

    async def _listen(self) -> None:
        async for event in self.monitor.events():
            match event["event"]:
                case "MIGRATION":
                    self.migration = event["data"]["status"]
                    self._news.ring()
                case "STOP":
                    self.stopped_at = self._clock.monotonic()
                case "RESUME" if self.ran_at is None:
                    self.ran_at = self._clock.monotonic()
            self._on_change(self.home.vm_id)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self.process.pidfd)
        self.over = True
        self._news.ring()
        self._on_end(self)
