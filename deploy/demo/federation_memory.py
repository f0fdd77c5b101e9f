"""The same two data centers in one process, on the memory adaptors."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from common import rpc
from deploy.demo.control import Control, connected
from deploy.demo.federation import DOMAINS
from deploy.demo.memory import MemoryStage, address_of
from deploy.domain import Domain
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.federation.settings import DomainSettings
from vcenter.store.sqlite import SqliteStore
from vserver.app import Agent, Parts
from vserver.config import AgentConfig, HypervisorKind, NetworkKind
from vserver.link import GrpcLink
from vserver.network.memory import MemoryNetwork
from vserver.state import MemoryState

_HOSTS = {"east": (1, 2), "west": (3, 4)}


class Line:
    """Carries what is said to a vCenter, for as long as it is not cut."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here = here
        self._there = there
        self._server: asyncio.Server | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        self.here.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.here)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self.here.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):  # nobody is there: then the line ends here as well
                far_reader, far_writer = await asyncio.open_unix_connection(self._there)
                try:
                    await asyncio.gather(_pour(reader, far_writer), _pour(far_reader, writer))
                finally:
                    far_writer.close()
        finally:
            writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class FederationMemoryStage(MemoryStage):
    """See `deploy.demo.federation.FederationStage`."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(self._dir.name)
        self._places = {name: folder / name for name in DOMAINS}
        self._domains = {
            name: Domain(place / "domain", name) for name, place in self._places.items()
        }
        self._lines = [
            Line(folder / "to-west.sock", self._socket_of("west")),
            Line(folder / "from-west.sock", self._socket_of("center")),
        ]

    def _socket_of(self, name: str) -> Path:
        return self._places[name] / "vcenter.sock"

    async def _up(self) -> None:
        for name, place in self._places.items():
            place.mkdir()
            self._domains[name].make(f"unix:{self._socket_of(name)}")
        for line in self._lines:
            await line.mend()
            self._stack.push_async_callback(line.cut)
        for name in DOMAINS:
            await self._stack.enter_async_context(self._center(name).running())
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        stopping = asyncio.Event()
        self._stack.callback(stopping.set)
        for name, numbers in _HOSTS.items():
            for number in numbers:
                tasks.create_task(self._agent_of(name, number).run(stopping))

    def _center(self, name: str) -> VCenter:
        store = f"{self._places[name]}/ledger.db"
        config = Config(
            domain=name,
            listen=(f"unix:{self._socket_of(name)}",),
            store=f"sqlite:{store}",
            tls=self._domains[name].identity("vcenter/demo"),
            domains=self._knows(name),
        )
        return VCenter(config, SqliteStore(store), self._clock)

    def _knows(self, own: str) -> tuple[DomainSettings, ...]:
        """By a line that can be cut, where it leads to the west or from there."""
        to_west, from_west = (line.here for line in self._lines)
        ways = {
            "center": {"east": self._socket_of("east"), "west": to_west},
            "east": {"center": self._socket_of("center")},
            "west": {"center": from_west},
        }
        return tuple(
            DomainSettings(
                name=name,
                address=f"unix:{way}",
                relation="parent" if name == "center" else "child",
                vouches="admin",
                tls=self._domains[name].identity(f"domain/{own}"),
            )
            for name, way in ways[own].items()
        )

    def _agent_of(self, domain: str, number: int) -> Agent:
        host = self._fleet.host(f"h{number}")
        self._hosts.append(host)
        address, who = f"unix://{self._socket_of(domain)}", f"vserver/h{number}"
        config = AgentConfig(
            server_id=f"h{number}",
            management_address=address_of(number),
            vtep_address=address_of(number),
            vcenter=(address,),
            state_dir=self._places[domain],
            hypervisor=HypervisorKind.MEMORY,
            network=NetworkKind.MEMORY,
            migration_uri=host.migration_uri,
            tls=self._domains[domain].identity(who),
        )
        network = MemoryNetwork(self._fabric.host(address_of(number)))
        channel = partial(rpc.channel, bundle=self._domains[domain].bundle(who))
        link = GrpcLink(address, config.server_id, channel)
        return Agent(config, Parts(self._clock, [link], host, network, MemoryState()))

    @contextmanager
    def controls(self) -> Iterator[Mapping[str, Control]]:
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    connected(f"unix:{self._socket_of(name)}", self._domains[name].operator)
                )
                for name in DOMAINS
            }

    def cut(self) -> None:
        for line in self._lines:
            self._call(line.cut())

    def mend(self) -> None:
        for line in self._lines:
            self._call(line.mend())

    def lines(self) -> list[str]:
        return ["(the memory stage ends with this process: run as root for a lab that stays)"]
