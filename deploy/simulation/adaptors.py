"""What one agent's process is handed: ways to its machine that take time, fail and fall silent.

A call has its effect somewhere between its beginning and its answer, so a process can die before
it, or after it without having heard.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from inspect import iscoroutinefunction
from typing import Any

from common.errors import Reason, Refusal
from common.model.operation import HostedState
from deploy.simulation.machines import GIVES_UP_AFTER_S, Machine
from vserver.core.epochs import KnownEpochs
from vserver.network.memory import MemoryNetwork
from vserver.network.port import Port

QUICK = (0.00005, 0.001)
_HARMLESS = frozenset(
    {"open", "close", "facts", "list", "get", "usage", "hosted", "keeps", "mirrored", "kept"}
)


class HypervisorWay:
    """`vserver.hypervisor.port.Hypervisor`: whatever the machine can do, over a way of its own."""

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self._machine = machine
        self._chance = chance
        self.loses = 0.0  # share of answers that do not come

    def __getattr__(self, name: str) -> Any:
        if not iscoroutinefunction(getattr(self._machine, name)):
            return getattr(self._machine, name)

        async def call(*args: Any) -> Any:
            return await self.call(name, args)

        return call

    @property
    def standbys(self) -> StandbysWay:
        return StandbysWay(self, self._machine)

    def events(self) -> AsyncIterator[str]:
        return self._machine.events()

    async def hosted(self, vm_id: str) -> HostedState:
        try:
            return HostedState(await self.call("hosted", (vm_id,)))
        except TimeoutError:
            return HostedState.UNKNOWN

    async def call(self, name: str, args: tuple[Any, ...], of: object = None) -> Any:
        """`of`: what of the machine is asked, if it is not all of it."""
        act = getattr(of or self._machine, name)
        await asyncio.sleep(self._chance.uniform(*QUICK))
        if self._machine.hangs and name != "close":
            await self._hang(name, args, act)
        answer = await act(*args)
        if name != "migrate":  # its own fates say how it is lost
            await asyncio.sleep(self._chance.uniform(*QUICK))
            if self._chance.random() < self.loses:
                await asyncio.sleep(GIVES_UP_AFTER_S)
                raise TimeoutError("no answer from libvirtd")
        return answer

    async def _hang(self, name: str, args: tuple[Any, ...], act: Callable[..., Any]) -> None:
        """The request waits over there, and is carried out when nobody waits for it any more."""
        machine, given_up, works = self._machine, False, asyncio.Event()

        def again() -> None:
            works.set()
            if given_up and name not in _HARMLESS and name != "migrate":
                machine.do_late(name, args[0], act(*args))

        machine.waiting.append(again)
        try:
            async with asyncio.timeout(GIVES_UP_AFTER_S):
                await works.wait()
        except TimeoutError:
            given_up = True
            raise TimeoutError("no answer from libvirtd") from None


class StandbysWay:
    """`vserver.hypervisor.standby.Standbys`, by the same way."""

    def __init__(self, way: HypervisorWay, machine: Machine) -> None:
        self._way = way
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            return await self._way.call(name, args, self._machine.standbys)

        return call


class NetworkWay:
    """`vserver.network.port.Network`. `opened` is told of every port that it opens."""

    name = "memory"

    def __init__(
        self, network: MemoryNetwork, chance: random.Random, opened: Callable[[Port], None]
    ) -> None:
        self._network = network
        self._chance = chance
        self._opened = opened
        self.fails = 0.0

    async def disturbed(self) -> bool:
        """Asked ten times a second: it takes no time here."""
        return await self._network.disturbed()

    def __getattr__(self, name: str) -> Any:
        if not iscoroutinefunction(getattr(self._network, name)):
            return getattr(self._network, name)

        async def call(*args: Any) -> Any:
            return await self._call(name, *args)

        return call

    async def _call(self, name: str, *args: Any) -> Any:
        await asyncio.sleep(self._chance.uniform(*QUICK))
        if name.startswith(("apply", "remove")) and self._chance.random() < self.fails:
            raise Refusal(Reason.NETWORK_FAILED, "nft: device or resource busy")
        answer = await getattr(self._network, name)(*args)
        if name == "apply_port" and args[0].is_open:
            self._opened(args[0])
        await asyncio.sleep(self._chance.uniform(*QUICK))
        return answer


class StateOnDisk:
    """`vserver.state.State` of one machine: what was saved before the end is there after it."""

    def __init__(self, chance: random.Random) -> None:
        self._kept = KnownEpochs()
        self._chance = chance

    async def load(self) -> KnownEpochs:
        return self._kept

    async def save(self, epochs: KnownEpochs) -> None:
        await asyncio.sleep(self._chance.uniform(0.0005, 0.01))
        self._kept = epochs
        await asyncio.sleep(self._chance.uniform(0.0001, 0.001))
