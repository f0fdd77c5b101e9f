"""The stage without real machines: the same daemons in one process, on the memory adaptors."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from common import log, rpc
from common.clock import SystemClock
from common.log import Level, LogSettings
from common.model.profile import ICMP, IPV4, TCP
from common.model.vm import Interface, Resources, Vm, VmState
from common.tls import Bundle
from deploy.demo.stage import Actor, Gap
from deploy.domain import Domain
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.store.sqlite import SqliteStore
from vserver.app import Agent, Parts
from vserver.config import AgentConfig, HypervisorKind, NetworkKind
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.link import GrpcLink
from vserver.network.fabric import Fabric
from vserver.network.frame import Frame
from vserver.network.memory import MemoryNetwork
from vserver.state import MemoryState

T = TypeVar("T")
_OPEN = {80, 22}  # what listens inside every guest
_EPHEMERAL = 40000


class MemoryStage:
    """See `deploy.demo.stage.Stage`. An event loop in a thread runs the daemons."""

    hypervisor = "memory"

    def __init__(self) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="vs-")
        self._socket = Path(self._dir.name) / "vcenter.sock"
        self._domain = Domain(Path(self._dir.name) / "domain")
        self.target = f"unix:{self._socket}"
        self._clock = SystemClock()
        self._fleet = MemoryFleet(self._clock)
        self._fabric = Fabric(self._clock, awake=self._is_awake)
        self._hosts: list[MemoryHypervisor] = []
        self._actors: dict[str, Actor] = {}
        self._eye = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()

    @property
    def operator(self) -> Bundle:
        return self._domain.operator

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def up(self) -> None:
        log.configure(LogSettings(level=Level.ERROR))  # the story is told on the same terminal
        self._thread.start()
        self._call(self._up())

    async def _up(self) -> None:
        self._domain.make(self.target)
        config = Config(
            domain=self._domain.name,
            listen=(self.target,),
            store=f"sqlite:{self._dir.name}/ledger.db",
            tls=self._domain.identity("vcenter/demo"),
        )
        store = SqliteStore(f"{self._dir.name}/ledger.db")
        center = VCenter(config, store, self._clock)
        await self._stack.enter_async_context(center.running())
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        stopping = asyncio.Event()
        self._stack.callback(stopping.set)
        for number in (1, 2, 3):
            tasks.create_task(self._agent(number).run(stopping))

    def _agent(self, number: int) -> Agent:
        host = self._fleet.host(f"h{number}")
        self._hosts.append(host)
        config = AgentConfig(
            server_id=f"h{number}",
            management_address=address_of(number),
            vtep_address=address_of(number),
            vcenter=(f"unix://{self._socket}",),
            state_dir=Path(self._dir.name),
            hypervisor=HypervisorKind.MEMORY,
            network=NetworkKind.MEMORY,
            migration_uri=host.migration_uri,
            tls=self._domain.identity(f"vserver/h{number}"),
        )
        network = MemoryNetwork(self._fabric.host(address_of(number)))
        bundle = self._domain.bundle(f"vserver/h{number}")
        channel = partial(rpc.channel, bundle=bundle)
        link = GrpcLink(f"unix://{self._socket}", config.server_id, channel)
        return Agent(config, Parts(self._clock, [link], host, network, MemoryState()))

    def down(self) -> None:
        self._call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._dir.cleanup()

    def logs(self) -> str:
        return ""

    def start_guest(self, actor: Actor) -> None:
        self._actors[actor.vm_id] = actor
        interface = Interface(actor.mac, (actor.ip,), actor.network, actor.vni)
        vm = Vm(
            vm_id=actor.vm_id,
            name=actor.name,
            tenant=actor.tenant,
            group=actor.group,
            interfaces=(interface,),
            resources=Resources(1, 128),
        )
        self._call(self._start(actor, vm))

    async def _start(self, actor: Actor, vm: Vm) -> None:
        self._hosts[actor.host - 1].create(vm)

    def wait_guests(self) -> None:
        """They need no time to boot."""

    def listens(self, actor: Actor, port: int) -> bool:
        return port in _OPEN and self._place(actor) is not None

    def place_probe(self, vni: int, address: str, host: int) -> None:
        """The eye is the tenant's own VM on that host: memory has no other endpoints."""
        self._eye = next(a.vm_id for a in self._actors.values() if a.vni == vni and a.host == host)

    def ping(self, ip: str) -> bool:
        return self._call(self._exchange(ip, ICMP, 0))

    def tcp(self, ip: str, port: int) -> bool:
        return port in _OPEN and self._call(self._exchange(ip, TCP, port))

    async def _exchange(self, ip: str, protocol: int, port: int) -> bool:
        """A packet there and one back, each through every policy on its way."""
        eye = next(a for a in self._actors.values() if a.vm_id == self._eye)
        target = next((a for a in self._actors.values() if (a.ip, a.vni) == (ip, eye.vni)), None)
        if target is None:
            return False
        if target is eye:
            return True
        there = _frame(eye, target, protocol, _EPHEMERAL, port)
        back = _frame(target, eye, protocol, port, _EPHEMERAL)
        return self._reaches(eye, target, there) and self._reaches(target, eye, back)

    def _reaches(self, sender: Actor, receiver: Actor, frame: Frame) -> bool:
        origin, goal = self._place(sender), self._place(receiver)
        return origin is not None and goal is not None and goal in self._fabric.send(*origin, frame)

    def _place(self, actor: Actor) -> tuple[str, str] | None:
        """(tunnel end, tap) of a VM that runs, wherever that is."""
        for number, host in enumerate(self._hosts, start=1):
            vm = host.vms.get(actor.vm_id)
            if vm is not None and vm.state is VmState.RUNNING:
                return address_of(number), vm.hosted().taps[0].device
        return None

    def _is_awake(self, vtep: str, device: str) -> bool:
        return any(self._place(actor) == (vtep, device) for actor in self._actors.values())

    @contextmanager
    def pinging(self, ip: str, every_ms: float) -> Iterator[Gap]:
        gap = Gap()
        pinger = asyncio.run_coroutine_threadsafe(self._ping_on(ip, every_ms, gap), self._loop)
        try:
            yield gap
        finally:
            pinger.cancel()

    async def _ping_on(self, ip: str, every_ms: float, gap: Gap) -> None:
        replies = [time.monotonic()]
        while True:
            answered = await self._exchange(ip, ICMP, 0)
            gap.sent += 1
            gap.lost += not answered
            if answered:
                replies.append(time.monotonic())
            last = [*replies, time.monotonic()]
            gap.longest_ms = max((b - a) * 1000 for a, b in pairwise(last))
            await self._clock.sleep(every_ms / 1000)

    def try_next(self, mover: Actor) -> list[str]:
        return ["(the memory stage ends with this process: run as root for a lab that stays)"]


def address_of(number: int) -> str:
    return f"10.0.0.{number}"


def _frame(sender: Actor, receiver: Actor, protocol: int, source: int, to: int) -> Frame:
    ports = (source, to) if protocol == TCP else (None, None)
    echo = (8 if source else 0) if protocol == ICMP else None
    return Frame(
        source_mac=sender.mac,
        destination_mac=receiver.mac,
        ethertype=IPV4,
        source_ip=sender.ip,
        destination_ip=receiver.ip,
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=echo,
    )
