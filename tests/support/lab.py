"""A running vCenter with its operator, agents that attach to it, and restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from common import rpc
from common.clock import Clock, SystemClock
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, signaling_pb2, types_pb2
from tests.support.agent import WAIT_S, Agent
from tests.support.calls import Client
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.memory import MemoryStore
from vcenter.store.port import Store
from vcenter.store.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "ledger.db"),
}


class QuickClock:
    """The machine's clock, running faster: leases and patience of seconds pass in no time."""

    def __init__(self, factor: float = 20.0) -> None:
        self._system = SystemClock()
        self._factor = factor

    def now_ms(self) -> int:
        return self._system.now_ms()

    def monotonic(self) -> float:
        return self._system.monotonic() * self._factor

    async def sleep(self, seconds: float) -> None:
        await self._system.sleep(seconds / self._factor)


class Lab:
    """Blue and red, each a tenant with one network: VNI 100 and VNI 200."""

    def __init__(self, folder: Path, store: Store, clock: Clock, **settings: Any) -> None:
        self.folder = folder
        self.store = store
        self._clock = clock
        self._settings = settings
        self._clients: list[Client] = []
        self._agents: list[Agent] = []
        self._marks = 0

    # ---- the vCenter ----

    async def start(self) -> None:
        address = f"unix:{self.folder}/vcenter.sock"
        defaults = {"store": "memory", "drain_seconds": 0.0, "lease_seconds": 300.0}
        config = Config(listen_plaintext=(address,), **defaults | self._settings)
        self.center = VCenter(config, self.store, self._clock)
        self._stopping = asyncio.Event()
        started = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._serving.done():
            self._serving.result()
        self.channel = rpc.channel(address)
        self.blocking = rpc.blocking_channel(address)
        for client in self._clients:
            client.bind(self.channel)

    async def _serve(self, started: asyncio.Event) -> None:
        async with self.center.running():
            started.set()
            await self._stopping.wait()

    async def stop(self) -> None:
        """Fails if any part of the vCenter did."""
        for agent in self._agents:
            await agent.detach()
        await self.channel.close()
        self.blocking.close()
        self._stopping.set()
        await self._serving

    async def restart(self) -> None:
        """A new vCenter on the same store; the agents that were attached come back."""
        attached = [agent for agent in self._agents if agent.attached]
        await self.stop()
        await self.start()
        for agent in attached:
            await agent.attach()

    async def reconfigure(self, **settings: Any) -> None:
        """As `restart`, with some of the configuration changed."""
        self._settings |= settings
        await self.restart()

    # ---- who talks to it ----

    def client(self, name: str) -> Client:
        client = Client(self.channel, name)
        self._clients.append(client)
        return client

    async def agent(self, server_id: str, **facts: Any) -> Agent:
        agent = Agent(self.client(f"vserver/{server_id}"), server_id, **facts)
        self._agents.append(agent)
        await agent.attach()
        return agent

    async def declare(self) -> None:
        self.operator = self.client("operator/alice")
        put = self.operator.inventory
        for tenant, vni in (("blue", 100), ("red", 200)):
            await put.PutTenant(
                inventory_pb2.PutTenantRequest(tenant=types_pb2.Tenant(tenant_id=tenant))
            )
            network = types_pb2.VirtualNetwork(
                network_id=f"{tenant}-net", tenant=tenant, vnis=[vni]
            )
            await put.PutNetwork(inventory_pb2.PutNetworkRequest(network=network))

    async def group(self, name: str = "web", profile: types_pb2.Profile | None = None) -> None:
        group = types_pb2.Group(tenant="blue", name=name, profile=profile)
        await self.operator.inventory.PutGroup(inventory_pb2.PutGroupRequest(group=group))

    # ---- what it knows ----

    @property
    def revision(self) -> int:
        return self.center.ledger.table.revision

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        before = self.revision
        yield
        assert self.revision == before

    async def heard(self, agent: Agent) -> None:
        """Returns when everything that the agent has said on its stream has had its effect."""
        self._marks += 1
        mark = signaling_pb2.ServerStatus(memory_total_mib=self._marks)
        said = signaling_pb2.ReportRequest(server=mark)
        await agent.say(report=said)  # the stream is read in order
        async with asyncio.timeout(WAIT_S):
            while (await self.server(agent.server_id)).status != mark:
                await agent.say(report=said)  # its own beat may have reported over it

    async def record(self, vm_id: str) -> types_pb2.VmRecord:
        request = directory_pb2.GetVmRequest(key=types_pb2.VmKey(vm_id=vm_id))
        return (await self.operator.directory.GetVm(request)).record

    async def alerts(self, reason: str = "") -> list[types_pb2.Alert]:
        answer = await self.operator.directory.ListAlerts(directory_pb2.ListAlertsRequest())
        return [alert for alert in answer.alerts if reason in ("", alert.reason)]

    async def server(self, server_id: str) -> directory_pb2.ServerLoad:
        answer = await self.operator.directory.ListServers(directory_pb2.ListServersRequest())
        return next(load for load in answer.servers if load.server.server_id == server_id)


@asynccontextmanager
async def running_lab(
    store: str = "memory", clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = Lab(folder, STORES[store](folder), clock or QuickClock(), **settings)
        await lab.start()
        try:
            await lab.declare()
            yield lab
        finally:
            await lab.stop()
