"""VMs that our gate holds: those that arrive, until they start, and those that left, until it is
certain that they start elsewhere."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Protocol
from weakref import WeakValueDictionary

from common import log
from common.clock import Clock
from common.errors import Reason, Refusal
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.waiting import first

RUNS_WITHIN = 15.0  # seconds from being let through: what is left of the copy, and a slow host
_LOOK_AGAIN = 0.25
_log = log.get(__name__)


class Seen(Enum):
    GONE = auto()  # or off
    ARRIVING = auto()
    LEFT_PAUSED = auto()
    RUNS = auto()


_NEEDS_NO_GATE = (Seen.GONE, Seen.RUNS)  # what runs has passed


class Hands(Protocol):
    """What libvirt does with a VM; each raises `Refusal` or `TimeoutError`."""

    async def look(self, vm_id: str) -> Seen: ...

    async def resume(self, vm_id: str) -> None: ...

    async def settle(self, vm_id: str) -> None:
        """What its copy has left to be put right."""
        ...

    async def end(self, vm_id: str) -> None:
        """Whatever stands here is over, its definition too."""
        ...

    async def discard(self, vm_id: str) -> None:
        """What has never run here, or does not run."""
        ...


class Copies(Protocol):
    """The copies from here."""

    def is_under_way(self, vm_id: str) -> bool: ...

    async def is_proven(self, vm_id: str) -> bool:
        """Wait until one that was held is over, or its copy has failed."""
        ...

    async def buried(self, vm_id: str) -> None:
        """Wait until libvirt has cleared it away."""
        ...


class Held:
    def __init__(self, hands: Hands, clock: Clock, copies: Copies, gate: Gate) -> None:
        self._hands = hands
        self._clock = clock
        self._copies = copies
        self._gate = gate
        self._told: dict[str, asyncio.Event] = {}
        self._owed: set[asyncio.Task[None]] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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

    def kept(self) -> list[str]:
        return self._gate.kept()

    async def expect(self, vm_id: str) -> bool:
        async with self._turn(vm_id):
            await self._gate.expect(vm_id)
        return True

    async def give_up(self, vm_id: str) -> None:
        """No move concerns it here any more. The ledger says so only when the source has said that
        its copy is over, or was never told to begin one, or has been fenced; and a copy that has
        begun is here. So what is not here does not come, and is no business of the gate's."""
        async with self._turn(vm_id):
            if self._copies.is_under_way(vm_id) or not self.stands(vm_id):
                return
            if await self._hands.look(vm_id) in _NEEDS_NO_GATE:
                self._gate.let_run(vm_id)  # somebody may be waiting
                await self._gate.forget(vm_id)

    def _turn(self, vm_id: str) -> asyncio.Lock:
        """A new move that is expected while we look finds the hold, or is held anew."""
        return self._turns.setdefault(vm_id, asyncio.Lock())

    async def look_again(self) -> None:
        """After a restart."""
        for vm_id in self._gate.sources():
            if await self._hands.look(vm_id) in _NEEDS_NO_GATE:
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
            await self._hands.resume(vm_id)
        await self._gate.forget(vm_id)
        return True

    def _pay_later(self, vm_id: str) -> None:
        """What the copy's mark remembers is put right behind the start: nobody waits for it."""
        task = asyncio.create_task(self._settle(vm_id), name=f"settling {vm_id}")
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)

    async def _settle(self, vm_id: str) -> None:
        try:
            await self._hands.settle(vm_id)
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
            await self._hands.end(vm_id)
        elif not leaves:
            await self._hands.discard(vm_id)
        await self._gate.forget(vm_id)
        return True

    async def _until_it_runs(self, vm_id: str) -> None:
        """libvirt lets it run when the rest of its memory has come; one whose source has no gate
        it leaves paused."""
        told = self._told[vm_id] = asyncio.Event()
        deadline = self._clock.monotonic() + RUNS_WITHIN
        try:
            while (seen := await self._after_news(told, vm_id)) is not Seen.RUNS:
                if seen is Seen.LEFT_PAUSED:
                    await self._hands.resume(vm_id)
                elif seen is Seen.GONE:
                    await self._gate.expect(vm_id)  # nothing runs here any more by this order
                    text = f"VM {vm_id} did not arrive: its copy has ended"
                    raise Refusal(Reason.HYPERVISOR_FAILED, text)
                if self._clock.monotonic() > deadline:
                    raise TimeoutError(f"VM {vm_id} does not run yet")
        finally:
            del self._told[vm_id]

    async def _after_news(self, told: asyncio.Event, vm_id: str) -> Seen:
        waiting = asyncio.ensure_future(told.wait())
        try:
            await first(self._clock, _LOOK_AGAIN, (waiting,))
        finally:
            waiting.cancel()
        told.clear()
        return await self._hands.look(vm_id)
