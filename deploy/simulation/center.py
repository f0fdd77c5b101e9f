"""One vCenter, its disk, and what must hold of its ledger. The daemon is the real one."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import cast

import grpc.aio

from common.pb.vsignal.v1 import (
    directory_pb2,
    federation_pb2,
    inventory_pb2,
    operations_pb2,
    session_pb2,
)
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from deploy.simulation.channel import Channel
from deploy.simulation.disk import Disk
from deploy.simulation.ground import Ground
from deploy.simulation.laws import Laws
from deploy.simulation.loop import Process
from deploy.simulation.server import Server
from vcenter.app import VCenter
from vcenter.config import Config
from vcenter.federation.settings import DomainSettings

LEASE_S = 10.0

_REPLIES = {
    f"/{service.full_name}/{method.name}": method.output_type
    for module in (
        signaling,
        session_pb2,
        directory_pb2,
        operations_pb2,
        inventory_pb2,
        federation_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# What a vCenter that knows of others says of its own ledger alone.
_ITS_OWN = frozenset(
    f"/vsignal.v1.{method}" for method in ("Session/Attach", "Signaling/Report", "Directory/Watch")
)


@dataclass(frozen=True, slots=True)
class Site:
    """A vCenter as its configuration has it. `process`: what its process is called."""

    domain: str = "local"
    process: str = "vcenter"
    domains: tuple[DomainSettings, ...] = ()

    @property
    def address(self) -> str:
        """So that who calls is believed without certificates."""
        return f"unix:/{self.process}"


class Center:
    def __init__(self, ground: Ground, site: Site, chance: random.Random) -> None:
        self.site = site
        self.address = site.address
        self.laws = Laws(ground.journal, ground.loop.time, ground.truth)
        self.disk = self.laws.disk = Disk(chance, self.laws.written)
        self.process: Process | None = None
        self._ground = ground
        self._stopping: asyncio.Event | None = None

    def boot(self) -> None:
        ground, site = self._ground, self.site
        process = self.process = ground.process(site.process)
        config = Config(
            domain=site.domain,
            domains=site.domains,
            listen_plaintext=(self.address,),
            store="memory",
            lease_seconds=LEASE_S,
            drain_seconds=0.5,
        )
        vcenter = VCenter(
            config,
            self.disk,
            ground.new_clock(),
            new_id=ground.new_id,
            make_server=lambda: self._server(process),
            dial=self._dial,
            chance=random.Random(f"{site.process}/{len(ground.processes)}"),
        )
        stopping = self._stopping = asyncio.Event()
        process.mourners.append(self._died)
        ground.journal.say(site.process, "starts")
        ground.owned(process, self._serve(vcenter, stopping), self.boot)

    def stop(self) -> None:
        """SIGTERM; systemd starts it again."""
        if self._stopping is not None:
            self._ground.journal.say(self.site.process, "is asked to stop")
            self._stopping.set()

    async def _serve(self, vcenter: VCenter, stopping: asyncio.Event) -> None:
        async with vcenter.running():
            await stopping.wait()

    def _died(self) -> None:
        lost = self.disk.lose_power()
        text = f"killed; {lost} unsynchronized writes lost"
        self._ground.journal.say(self.site.process, text)

    def _server(self, process: Process) -> grpc.aio.Server:
        ground = self._ground
        return cast(grpc.aio.Server, Server(process, ground.servers, self._said, ground.defect))

    def _dial(self, domain: DomainSettings) -> grpc.aio.Channel:
        ground = self._ground
        ends = (self.address, domain.address)
        return cast(grpc.aio.Channel, Channel(ground.network, ground.servers, ends))

    def _said(self, method: str, message: bytes) -> None:
        kind = _REPLIES.get(method)
        if kind is not None and (not self.site.domains or method in _ITS_OWN):
            self.laws.said(method, kind._concrete_class.FromString(message))
