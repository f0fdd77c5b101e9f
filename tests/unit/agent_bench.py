"""One real agent between a vCenter of few words and two hosts in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from common.clock import SystemClock
from common.model.operation import MoveOutcome, MoveStep
from common.model.vm import Resources, Vm
from common.model.wanted import WantedNetwork
from tests.unit.agent_center import Center
from tests.unit.agent_values import VM, vm
from vserver.app import Agent, Parts
from vserver.config import AgentConfig
from vserver.hypervisor.memory import MemoryFleet
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.network.fabric import Fabric, MemoryHost
from vserver.network.memory import MemoryNetwork
from vserver.network.port import Port
from vserver.state import MemoryState

BLUE = WantedNetwork(1001, "blue", (), ())
CONFIG = {
    "server_id": "host-1",
    "management_address": "192.0.2.1",
    "vtep_address": "192.0.2.1",
    "vcenter": ("localhost:1",),
    "plaintext": True,
    "state_dir": "/nowhere",
}


class Bench:
    """`hypervisor` is the agent's own; `peer` is another host of the fleet, without an agent."""

    def __init__(self, speed: CopySpeed, centers: int = 1) -> None:
        self.clock = SystemClock()
        fleet = MemoryFleet(self.clock, speed)
        self.hypervisor, self.peer = fleet.host("host-1"), fleet.host("host-2")
        self.kernel: MemoryHost = Fabric(self.clock).host("192.0.2.1")
        self.network = MemoryNetwork(self.kernel)
        self.state = MemoryState()
        self.centers = [Center(f"center-{n}") for n in range(centers)]
        self.agent = self._agent()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def center(self) -> Center:
        return self.centers[0]

    @property
    def ports(self) -> dict[str, Port]:
        return self.kernel.ports

    def open_ports(self) -> set[str]:
        return {device for device, port in self.ports.items() if port.is_open}

    def _agent(self) -> Agent:
        parts = Parts(
            self.clock,
            self.centers,
            self.hypervisor,
            self.network,
            self.state,
            "test",
            random.Random(1),
        )
        return Agent(AgentConfig.model_validate(CONFIG, strict=False), parts)

    async def start(self) -> None:
        """A fresh agent on the same host; it is attached when this returns."""
        before = len(self.center.hellos)
        self.agent = self._agent()
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self.agent.run(self._stopping))
        await until(lambda: len(self.center.hellos) > before)

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None

    def create(self, vm_id: str = VM, *, here: bool = True) -> None:
        host = self.hypervisor if here else self.peer
        plain = vm(vm_id)
        host.create(Vm(plain.vm_id, plain.name, "", "", plain.interfaces, None, Resources(1, 128)))

    async def outcome(self, step: MoveStep) -> MoveOutcome:
        """The next outcome of this step; earlier ones are forgotten."""
        found: list[MoveOutcome] = []

        def there() -> bool:
            found[:] = [o for o in self.center.outcomes if o.step is step]
            return bool(found)

        await until(there)
        self.center.outcomes.clear()
        return found[0]


@asynccontextmanager
async def bench(
    *,
    bytes_per_second: float = 1e10,
    downtime: float = 0.005,
    figures_after: float = 0.0,
    centers: int = 1,
) -> AsyncIterator[Bench]:
    made = Bench(CopySpeed(bytes_per_second, 10, downtime, figures_after), centers)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def until(true: Callable[[], bool], within: float = 5.0) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110 - many places, and none of them rings
            await asyncio.sleep(0.005)


async def settle(seconds: float = 0.1) -> None:
    """Time for what should not happen."""
    await asyncio.sleep(seconds)
