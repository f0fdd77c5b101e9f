"""Guests that stand still here, all sent, until the ledger has said where they run.

The mark says of a copy that it is gated, and QEMU that everything is sent: together they mean HELD,
for this agent and for any after it. From there on nobody here asks the destination, and nobody lets
the guest run: it does by `take_back`, when the ledger has given it back, or it is ended, when it
runs elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from common.clock import Clock
from common.errors import Refusal
from vserver.hypervisor.port import Copied
from vserver.hypervisor.qemu.departure import Departure, is_over, is_sent, stays
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.home import HELD
from vserver.hypervisor.qemu.watched import Watched

SHOWN_AFTER = 1.0  # seconds; mostly it runs over there by then
_FIGURES = 256  # copies; of one whose move is decided by hand nobody asks


class Held:
    """`bury`: what has moved is ended."""

    def __init__(self, guests: Guests, clock: Clock, bury: Callable[[Watched], None]) -> None:
        self._guests = guests
        self._clock = clock
        self._bury = bury
        self._leaving: dict[str, Departure] = {}
        self._figures: dict[str, tuple[Departure, asyncio.Task[Copied]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def begins(self, departure: Departure) -> None:
        """Its copy has just been sent."""
        vm_id = departure.watched.home.vm_id
        self._leaving[vm_id] = departure
        self._figures.pop(vm_id, None)
        figures = asyncio.create_task(departure.copied(), name=f"figures of {vm_id}")
        self._figures[vm_id] = departure, figures
        for forgotten in list(self._figures)[:-_FIGURES]:
            del self._figures[forgotten]
        shown = asyncio.create_task(self._show(departure), name=f"guest {vm_id} is held")
        for task in (figures, shown):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """What is held stays so."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def is_leaving(self, vm_id: str) -> bool:
        """Held so recently that nobody is shown it: to look after it, in the middle of its switch,
        would only take time from those who let it run over there."""
        departure = self._leaving.get(vm_id)
        return departure is not None and not departure.watched.over

    async def holds(self, vm_id: str) -> bool:
        """Raises TimeoutError where QEMU does not say."""
        if self.is_leaving(vm_id):
            return True
        home = self._guests.homes.of(vm_id)
        if not (home.has(HELD) and home.has("leaving")):
            return False
        watched = await self._guests.watched(vm_id)
        return watched is not None and await is_sent(watched)

    async def take_back(self, vm_id: str) -> None:
        """It runs here again, with its memory; no error where it does so already."""
        watched = await self._guests.watched(vm_id)
        if watched is None:
            raise refused(f"there is no running guest {vm_id} here")
        if not await is_over(watched):
            raise refused(f"guest {vm_id} is on its way to another host")
        self._leaving.pop(vm_id, None)
        self._figures.pop(vm_id, None)
        await watched.monitor.execute("cont")
        await stays(watched, self._clock)
        self._guests.changed(vm_id)

    async def end(self, vm_id: str) -> None:
        """It runs elsewhere: what is here is over for good."""
        if vm_id in self._figures:
            await asyncio.wait({self._figures[vm_id][1]})  # QEMU says them while it is there
        watched = await self._guests.watched(vm_id)
        self._leaving.pop(vm_id, None)
        if watched is not None:
            watched.process.kill()
            self._bury(watched)

    async def last_figures(self, vm_id: str) -> Copied | None:
        """QEMU counts until all was sent; the guest stands still until it runs over there."""
        departure, figures = self._figures.pop(vm_id, (None, None))
        if departure is None or figures is None:
            return None
        copied = await figures
        with suppress(Refusal, TimeoutError):
            still = await departure.stood_still_ms()
            return replace(copied, downtime_ms=max(still, copied.downtime_ms))
        return copied

    async def _show(self, departure: Departure) -> None:
        await self._clock.sleep(SHOWN_AFTER)
        vm_id = departure.watched.home.vm_id
        if self._leaving.get(vm_id) is departure:
            del self._leaving[vm_id]
            self._guests.changed(vm_id)
