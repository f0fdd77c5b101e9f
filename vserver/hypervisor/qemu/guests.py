"""The guests of this host, from their directory and their processes: what is there, now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.vm import VmState
from vserver.hypervisor.metadata import AttachmentRules
from vserver.hypervisor.port import HostedVm
from vserver.hypervisor.qemu import process
from vserver.hypervisor.qemu.definition import Definition, describe
from vserver.hypervisor.qemu.home import HELD, Home, Homes, Launch
from vserver.hypervisor.qemu.watched import Watched

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """One look at the directory; `launch` only if its process is there."""

    home: Home
    definition: Definition | None
    launch: Launch | None
    process: process.Process | None
    incoming: bool
    held: bool


class Guests:
    """Keeps one `Watched` a running guest, found anew whenever somebody looks."""

    def __init__(
        self,
        homes: Homes,
        clock: Clock,
        rules: AttachmentRules,
        changed: Callable[[str], None],
    ) -> None:
        self.homes = homes
        self.clock = clock
        self.changed = changed
        self._rules = rules
        self._watched: dict[str, Watched] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.arriving: set[str] = set()  # being brought here now: not a failed copy's remains

    async def open(self) -> None:
        """Find what runs, also where a pid file has been lost."""
        for home in await asyncio.to_thread(self.homes.all):
            await self.runs(home.vm_id)

    async def list(self) -> list[HostedVm]:
        homes = await asyncio.to_thread(self.homes.all)
        found = await asyncio.gather(*(self._read(home) for home in homes))
        return [hosted for hosted in found if hosted]

    async def get(self, vm_id: str) -> HostedVm | None:
        await asyncio.to_thread(self.homes.check)
        return await self._read(self.homes.of(vm_id))

    async def runs(self, vm_id: str) -> bool:
        """Whether there is a process of it; searched for, not looked up."""
        await asyncio.to_thread(self.homes.check)
        found = await asyncio.to_thread(process.search, self.homes.of(vm_id))
        if found:
            found.close()
        return found is not None

    async def watched(self, vm_id: str) -> Watched | None:
        """The running guest with its monitor; None if it does not run."""
        known = self._watched.get(vm_id)
        if known and not known.over and known.monitor.alive:
            return known
        async with self._opening.setdefault(vm_id, asyncio.Lock()):
            return await self._watch(self.homes.of(vm_id))

    def pids(self) -> dict[str, int]:
        """Of the guests that run, as far as somebody has looked at them."""
        return {i: watched.process.pid for i, watched in self._watched.items()}

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._watched:
            await self._watched.popitem()[1].close()

    async def _watch(self, home: Home) -> Watched | None:
        known = self._watched.get(home.vm_id)
        if known and not known.over and known.monitor.alive:
            return known
        found = await asyncio.to_thread(process.find, home)
        if found is None:
            return None
        if known:
            del self._watched[home.vm_id]
            await known.close()
        watched = Watched(home, found, self.clock, self.changed, self._ended)
        try:
            await watched.open()
        except BaseException:
            found.close()
            raise
        self._watched[home.vm_id] = watched
        return watched

    def _ended(self, watched: Watched) -> None:
        task = asyncio.create_task(self._forget(watched))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, watched: Watched) -> None:
        home = watched.home
        if self._watched.get(home.vm_id) is watched:
            del self._watched[home.vm_id]
            self._opening.pop(home.vm_id, None)
        with suppress(OSError):
            await asyncio.to_thread(self._tidy, home)
        self.changed(home.vm_id)
        await watched.close()

    def _tidy(self, home: Home) -> None:
        """A copy that came to nothing leaves nothing. The mark is looked at first: the guest may be
        arriving anew meanwhile, and is in `arriving` before it is marked."""
        if not home.has("incoming") or home.vm_id in self.arriving:
            return
        if running := process.find(home):
            running.close()
        else:
            home.remove()

    async def _read(self, home: Home) -> HostedVm | None:
        try:
            found = await asyncio.to_thread(self._look, home)
        except Refusal as error:
            _log.error("guest %s: %s", home.vm_id, error.message)
            return None
        definition = found.launch.definition if found.launch else found.definition
        if definition is None:
            return None
        described = describe(definition, found.launch.taps if found.launch else {}, self._rules)
        state = await self._state(found) if found.launch else VmState.SHUT_OFF
        return HostedVm(described.vm, state, described.taps, described.problem, described.disks)

    def _look(self, home: Home) -> _Found:
        self._tidy(home)
        running = process.find(home)
        if running:
            running.close()
        launch = home.launch() if running else None
        marks = home.has("incoming"), home.has("leaving") and home.has(HELD)
        return _Found(home, home.definition(), launch, running, *marks)

    async def _state(self, found: _Found) -> VmState:
        """Nothing has said that a guest whose QEMU is silent does not run. One that was sent and is
        held waits for the ledger's word, like one that has arrived."""
        try:
            watched = await self.watched(found.home.vm_id)
            status = await watched.monitor.status() if watched else "shutdown"
        except (Refusal, TimeoutError) as error:
            _log.warning("guest %s: %s", found.home.vm_id, error)
            return VmState.RUNNING
        if watched is None:
            return VmState.SHUT_OFF
        if status == "running":
            return VmState.RUNNING
        waits = found.incoming or (found.held and status == "postmigrate")
        return VmState.INCOMING if waits or status == "inmigrate" else VmState.PAUSED


def refused(text: str) -> Refusal:
    return Refusal(Reason.HYPERVISOR_FAILED, text)
