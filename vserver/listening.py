"""Listening to guests that move between two other hosts, on the vCenter's order.

It asks for a sign of life over the overlay, as a neighbour would, and says in the end for how long
there was none. Whatever goes wrong here is said as the reason why nothing was measured: no move
waits for it, and nothing on this host depends on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from common import log
from common.clock import Clock
from common.errors import Refusal
from common.model.silence import Listen, ListenStage, Silence
from common.model.wanted import WantedVm
from vserver.core.silence import Silences
from vserver.network.port import Ear, Neighbour, Network

EVERY = 0.01  # seconds
AT_ONCE = 8  # moves
LONGEST = 1800.0  # seconds, to the guest's start at its destination
ANSWERS_WITHIN = 10.0  # seconds from there

_log = log.get(__name__)


@dataclass(slots=True)
class _Ear:
    """`last`: the guest runs at its destination."""

    last: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Listening:
    """`vms`: what is wanted of this host. `say` is told what came of an order, once."""

    def __init__(
        self,
        network: Network,
        vms: Callable[[], Mapping[str, WantedVm]],
        clock: Clock,
        say: Callable[[Silence], None],
    ) -> None:
        self._network = network
        self._vms = vms
        self._clock = clock
        self._say = say
        self._ears: dict[str, _Ear] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the tasks, for ever; cancelling it cancels them."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def told(self, order: Listen) -> None:
        """Hearing an order twice is harmless."""
        ear = self._ears.get(order.operation_id)
        if order.stage is ListenStage.BEGIN:
            if ear is None:
                self._begin(order)
        elif ear is None:
            if order.stage is ListenStage.LAST:
                self._say(Silence(order.operation_id, why="it was not listened to from the start"))
        elif order.stage is ListenStage.LAST:
            ear.last.set()
        elif ear.task is not None:
            ear.task.cancel()

    def _begin(self, order: Listen) -> None:
        if self._tasks is None or len(self._ears) >= AT_ONCE:
            return  # said when the move is over
        ear = self._ears[order.operation_id] = _Ear()
        ear.task = self._tasks.create_task(self._listen(order, ear))

    async def _listen(self, order: Listen, ear: _Ear) -> None:
        try:
            silence = await self._heard(order, ear.last)
        except (Refusal, OSError) as error:
            silence = Silence(order.operation_id, why=str(error))
        finally:
            del self._ears[order.operation_id]
        _log.info("listened", operation_id=silence.operation_id, why=silence.why or None)
        self._say(silence)

    async def _heard(self, order: Listen, last: asyncio.Event) -> Silence:
        neighbour = self._neighbour(order)
        if neighbour is None:
            return Silence(order.operation_id, why="no VM of this host is on its network any more")
        begun = self._clock.monotonic()
        with self._network.listen(neighbour) as ear:
            silences = Silences()
            why = await self._until_switched(ear, silences, last)
            why = why or await self._until_it_answers(ear, silences)
        if silences.longest > self._clock.monotonic() - begun:
            why = why or "this host's clock was set meanwhile"
        return Silence(order.operation_id, silences.longest * 1000, why)

    async def _until_switched(self, ear: Ear, silences: Silences, last: asyncio.Event) -> str:
        until = self._clock.monotonic() + LONGEST
        while not last.is_set():
            if self._clock.monotonic() > until:
                return f"the move took longer than {LONGEST:.0f} s"
            await self._ask(ear, silences)
        return "" if silences.answers else "it did not answer before its move, either"

    async def _until_it_answers(self, ear: Ear, silences: Silences) -> str:
        """What was on its way when the order came is of before."""
        silences.take(ear.heard())
        answers, until = silences.answers, self._clock.monotonic() + ANSWERS_WITHIN
        while silences.answers == answers:
            if self._clock.monotonic() > until:
                return f"it did not answer within {ANSWERS_WITHIN:.0f} s of its start"
            await self._ask(ear, silences)
        return ""

    async def _ask(self, ear: Ear, silences: Silences) -> None:
        ear.ask()
        await self._clock.sleep(EVERY)
        silences.take(ear.heard())

    def _neighbour(self, order: Listen) -> Neighbour | None:
        """In the name of one of our own VMs: all hosts of the network know the way to it. Rather of
        one that stays here."""
        own = [
            (vm.move is not None, vm.vm.vm_id, interface.mac)
            for vm in self._vms().values()
            if vm.owned
            for interface in vm.vm.interfaces
            if interface.vni == order.vni
        ]
        if not own:
            return None
        return Neighbour(order.vni, order.mac, order.ip, min(own)[-1])
