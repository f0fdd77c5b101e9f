"""The copies under way from this host, and what an agent before us left half done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import Progress
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms
from vserver.hypervisor.qemu.departure import Departure, is_sent, stays, until_ended
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.held import Held
from vserver.hypervisor.qemu.home import HELD
from vserver.hypervisor.qemu.process import ended
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.watched import Watched

_log = logging.getLogger(__name__)
_ASK_AGAIN, _CANCEL_PATIENCE = 0.2, 15.0


class Departures:
    """Owns every copy until it has ended, whoever stopped waiting before."""

    def __init__(self, guests: Guests, secrecy: Secrecy, clock: Clock) -> None:
        self._guests = guests
        self._secrecy = secrecy
        self._clock = clock
        self._under_way: dict[str, Departure] = {}
        self._burials: dict[str, asyncio.Task[None]] = {}
        self.held = Held(guests, clock, self._begin_burial)

    async def open(self) -> None:
        """A guest that an agent before us left at the gate runs on: nobody would let it pass."""
        for home in await asyncio.to_thread(self._guests.homes.all):
            if home.has("leaving"):
                try:
                    watched = await self._guests.watched(home.vm_id)
                    if watched and not await is_sent(watched):
                        await self._call_off(watched)
                except (Refusal, TimeoutError) as error:
                    _log.warning("the copy of guest %s: %s", home.vm_id, error)

    async def close(self) -> None:
        """What is not past the gate is called off: without an agent it would wait there."""
        for departure in list(self._under_way.values()):
            await until_ended(departure, self._clock, _ASK_AGAIN)
        await self.held.close()
        if self._burials:
            await asyncio.wait(list(self._burials.values()))

    def is_over(self, vm_id: str) -> bool:
        """Proven to be over here, though its process or its files may still be there."""
        return vm_id in self._burials

    async def run(
        self,
        vm_id: str,
        destination: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms,
    ) -> Copied:
        """See `Hypervisor.migrate`. A copy that an agent before us has sent is only confirmed; one
        that is held since is the ledger's."""
        if await self.held.holds(vm_id):
            raise refused(f"guest {vm_id} has been sent, and is held")
        departure = self._departure(await self._running(vm_id), destination, progress, terms)
        if await is_sent(departure.watched):
            return await self._own(departure, departure.finish(give_up=False))
        return await self._own(departure, departure.run(devices))

    async def abort(self, vm_id: str) -> None:
        if departure := self._under_way.get(vm_id):
            await until_ended(departure, self._clock, _ASK_AGAIN)
            return
        watched = await self._guests.watched(vm_id)
        if watched is None or not watched.home.has("leaving"):
            return
        if not await is_sent(watched):
            await self._call_off(watched)
            return
        if watched.home.has(HELD):
            return
        to = await asyncio.to_thread(watched.home.file("leaving").read_text)
        departure = self._departure(watched, to, lambda _: None)
        with suppress(Refusal):  # it runs on here, as was wanted
            await self._own(departure, departure.finish(give_up=True))

    async def take_back(self, vm_id: str) -> None:
        """What is held runs here again; nothing else does that is on its way."""
        if vm_id in self._under_way or not self._guests.homes.of(vm_id).has(HELD):
            raise refused(f"guest {vm_id} is on its way to another host")
        await self.held.take_back(vm_id)

    async def buried(self, vm_id: str) -> None:
        if burial := self._burials.get(vm_id):
            await asyncio.shield(burial)

    def _departure(
        self,
        watched: Watched,
        destination: str,
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Departure:
        return Departure(watched, destination, self._secrecy, self._clock, progress, terms)

    async def _running(self, vm_id: str) -> Watched:
        if vm_id in self._under_way:
            raise refused(f"guest {vm_id} is being copied already")
        watched = await self._guests.watched(vm_id)
        if watched is None:
            raise refused(f"guest {vm_id} does not run here")
        return watched

    async def _own(self, departure: Departure, work: Coroutine[Any, Any, Copied]) -> Copied:
        """On cancellation stop the copy first, and wait for its end."""
        vm_id = departure.watched.home.vm_id
        self._under_way[vm_id] = departure
        task = asyncio.create_task(work, name=f"copy of {vm_id}")
        task.add_done_callback(lambda done: self._over(departure, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await until_ended(departure, self._clock, _ASK_AGAIN)
            raise

    def _over(self, departure: Departure, done: asyncio.Task[Copied]) -> None:
        if not done.cancelled():
            done.exception()  # whoever stopped waiting does not ask
        vm_id = departure.watched.home.vm_id
        del self._under_way[vm_id]
        if departure.over:
            self._begin_burial(departure.watched)
        elif departure.held:
            self.held.begins(departure)
        departure.ended.set()

    def _begin_burial(self, watched: Watched) -> None:
        vm_id = watched.home.vm_id
        self._burials[vm_id] = asyncio.create_task(self._bury(watched), name=f"burial of {vm_id}")

    async def _bury(self, watched: Watched) -> None:
        """What has moved leaves neither process nor file."""
        home = watched.home
        try:
            if not watched.over:
                await ended(watched.process)
            await asyncio.to_thread(home.remove)
        except (TimeoutError, OSError) as error:
            _log.error("guest %s has moved, and is not cleared away: %s", home.vm_id, error)
        finally:
            del self._burials[home.vm_id]
            self._guests.changed(home.vm_id)

    async def _call_off(self, watched: Watched) -> None:
        with suppress(Refusal):  # there may be nothing to cancel any more
            await watched.monitor.execute("migrate_cancel")
        async with asyncio.timeout(_CANCEL_PATIENCE):
            while await watched.monitor.status() == "finish-migrate":
                await self._clock.sleep(0.01)
        if not await is_sent(watched):
            await stays(watched, self._clock)
