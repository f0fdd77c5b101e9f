"""VMs that our gate holds: those that arrive, until they start, and those that left, until it is
certain that they start elsewhere."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

import libvirt

from common import log
from common.clock import Clock
from common.errors import Reason, Refusal
from vserver.hypervisor.libvirt import changing, domains
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.copies import Copies
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.states import Seen
from vserver.hypervisor.libvirt.waiting import first

RUNS_WITHIN = 15.0  # seconds from being let through: what is left of the copy, and a slow host
_LOOK_AGAIN = 0.25
_log = log.get(__name__)


class Held:
    def __init__(self, connection: Connection, clock: Clock, copies: Copies, gate: Gate) -> None:
        self._connection = connection
        self._clock = clock
        self._copies = copies
        self._gate = gate
        self._told: dict[str, asyncio.Event] = {}
        self._owed: set[asyncio.Task[None]] = set()

    def is_leaving(self, vm_id: str) -> bool:
        """Held here, while libvirt is still busy with its copy."""
        return self._gate.holds(vm_id) and self._copies.is_under_way(vm_id)

    def has_back(self, vm_id: str) -> bool:
        """Held here, after its copy has failed, or an agent before us has begun it."""
        return self._gate.holds(vm_id)

    def stands(self, vm_id: str) -> bool:
        return self._gate.holds(vm_id) or self._gate.expects(vm_id)

    def news(self, vm_id: str) -> None:
        if told := self._told.get(vm_id):
            told.set()

    async def expect(self, vm_id: str) -> bool:
        await self._gate.expect(vm_id)
        return True

    async def look_again(self) -> None:
        """After a restart: what runs passed before, and what is gone needs no gate."""
        for vm_id in self._gate.sources():
            if await self._look(vm_id) in (_Seen.GONE, _Seen.RUNS):
                await self._gate.forget(vm_id)

    async def let_run(self, vm_id: str) -> bool:
        """Return when it runs. False: no gate keeps it."""
        if not self.stands(vm_id):
            return False
        arriving = self._gate.expects(vm_id)
        self._gate.let_run(vm_id)
        if arriving:
            await self._until_it_runs(vm_id)
            self._pay_later(vm_id)
        else:
            await self._copies.buried(vm_id)
            await self._connection.call(lambda conn: changing.resume(conn, vm_id))
        await self._gate.forget(vm_id)
        return True

    def _pay_later(self, vm_id: str) -> None:
        """What the copy's mark remembers is put right behind the start: nobody waits for it."""
        task = asyncio.create_task(self._settle(vm_id), name=f"settling {vm_id}")
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)

    async def _settle(self, vm_id: str) -> None:
        try:
            await self._connection.call(lambda conn: changing.settle(conn, vm_id))
        except (Refusal, TimeoutError) as error:
            _log.warning("autostart is not set again", vm_id=vm_id, error=str(error))

    async def close(self) -> None:
        for task in self._owed:
            task.cancel()
        if self._owed:
            await asyncio.wait(self._owed)

    async def end(self, vm_id: str) -> bool:
        """It is over here: what arrived and never ran, or what left and runs elsewhere. False: no
        gate keeps it."""
        if not self.stands(vm_id):
            return False
        leaves = self._gate.holds(vm_id)
        self._gate.deny(vm_id)
        if await self._copies.is_proven(vm_id):
            return True  # clearing it away is under way
        await self._copies.buried(vm_id)
        if self._gate.holds(vm_id):
            await self._connection.call(lambda conn: changing.end(conn, vm_id))
        elif not leaves:
            await self._connection.call(lambda conn: changing.discard(conn, vm_id))
        await self._gate.forget(vm_id)
        return True

    async def _until_it_runs(self, vm_id: str) -> None:
        """libvirt lets it run when the rest of its memory has come; one whose source has no gate
        it leaves paused."""
        told = self._told[vm_id] = asyncio.Event()
        deadline = self._clock.monotonic() + RUNS_WITHIN
        try:
            while (seen := await self._after_news(told, vm_id)) is not _Seen.RUNS:
                if seen is _Seen.LEFT_PAUSED:
                    await self._connection.call(lambda conn: changing.resume(conn, vm_id))
                elif seen is _Seen.GONE:
                    await self._gate.expect(vm_id)  # nothing runs here any more by this order
                    text = f"VM {vm_id} did not arrive: its copy has ended"
                    raise Refusal(Reason.HYPERVISOR_FAILED, text)
                if self._clock.monotonic() > deadline:
                    raise TimeoutError(f"VM {vm_id} does not run yet")
        finally:
            del self._told[vm_id]

    async def _after_news(self, told: asyncio.Event, vm_id: str) -> _Seen:
        waiting = asyncio.ensure_future(told.wait())
        try:
            await first(self._clock, _LOOK_AGAIN, (waiting,))
        finally:
            waiting.cancel()
        told.clear()
        return await self._look(vm_id)

    async def _look(self, vm_id: str) -> _Seen:
        return await self._connection.call(lambda conn: _look(conn, vm_id))


class _Seen(Enum):
    GONE = auto()  # or off
    ARRIVING = auto()
    LEFT_PAUSED = auto()
    RUNS = auto()


def _look(conn: Any, vm_id: str) -> _Seen:
    domain = domains.find(conn, vm_id)
    if domain is None or domain.isActive() != 1:
        return _Seen.GONE
    state, reason = domain.state()
    if state != libvirt.VIR_DOMAIN_PAUSED:
        return _Seen.RUNS
    return _Seen.ARRIVING if Seen(state, reason, True, False).arriving else _Seen.LEFT_PAUSED
