"""A vCenter of few words: a real `Link`, in memory. Tests say what comes down, see what goes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.codec.checker import Checker
from common.codec.operation import from_outcome
from common.codec.times import to_duration
from common.codec.wanted import to_network, to_wanted_vm
from common.errors import Refusal
from common.model.operation import MoveOutcome
from common.model.wanted import NetworkPart, WantedNetwork, WantedVm, network_digest
from common.pb.vsignal.v1 import session_pb2, signaling_pb2
from vserver.link import LinkLost, Stream


class Wire:
    """One attached stream."""

    def __init__(self) -> None:
        self.down: asyncio.Queue[session_pb2.CenterMessage | None] = asyncio.Queue()
        self.up: asyncio.Queue[session_pb2.AgentMessage] = asyncio.Queue()

    async def send(self, message: session_pb2.AgentMessage) -> None:
        self.up.put_nowait(message)

    async def receive(self) -> session_pb2.CenterMessage:
        message = await self.down.get()
        if message is None:
            raise LinkLost("cut by the test")
        return message


class Center:
    """Accepts everything, unless `refusal` says otherwise."""

    def __init__(self, name: str = "center", server_id: str = "host-1") -> None:
        self._name = name
        self._server_id = server_id
        self.away = False
        self.lease_s = 1.0  # of those who attach from now on
        self.refusal: Refusal | None = None
        self.turned_away: Refusal | None = None
        self.registered: list[signaling_pb2.RegisterRequest] = []
        self.deregistered: list[signaling_pb2.DeregisterRequest] = []
        self.hellos: list[session_pb2.Hello] = []
        self.outcomes: list[MoveOutcome] = []
        self.reports: list[signaling_pb2.ReportRequest] = []
        self.resyncs: list[int] = []
        self.answers: list[session_pb2.Answer] = []
        self.progress: list[session_pb2.MoveProgress] = []
        self.wire = Wire()

    @property
    def name(self) -> str:
        return self._name

    @asynccontextmanager
    async def attach(self, hello: session_pb2.Hello) -> AsyncIterator[Stream]:
        if self.away:
            raise LinkLost("away")
        self.hellos.append(hello)
        if self.turned_away is not None:
            raise self.turned_away
        self.wire = Wire()
        welcome = session_pb2.Welcome(lease=to_duration(self.lease_s), domain="test", revision=1)
        self.wire.down.put_nowait(session_pb2.CenterMessage(welcome=welcome))
        reading = asyncio.create_task(self._read(self.wire))
        try:
            yield self.wire
        finally:
            reading.cancel()

    async def _read(self, wire: Wire) -> None:
        while True:
            message = await wire.up.get()
            match message.WhichOneof("message"):
                case "outcome":
                    self.outcomes.append(from_outcome(Checker(), message.outcome))
                case "report":
                    self.reports.append(message.report)
                case "resync":
                    self.resyncs.append(message.resync.vni)
                case "answer":
                    self.answers.append(message.answer)
                case "progress":
                    self.progress.append(message.progress)

    # ---- what comes down ----

    def tell(self, *items: WantedVm | WantedNetwork) -> None:
        for item in items:
            if isinstance(item, WantedVm):
                message = session_pb2.CenterMessage(vm=to_wanted_vm(item))
            else:
                message = session_pb2.CenterMessage(network=to_network(whole(item)))
            self.wire.down.put_nowait(message)

    def synced(self, revision: int = 1) -> None:
        synced = session_pb2.Synced(revision=revision)
        self.wire.down.put_nowait(session_pb2.CenterMessage(synced=synced))

    def gone(self, vm_id: str) -> None:
        self.wire.down.put_nowait(session_pb2.CenterMessage(vm_gone=vm_id))

    def ask(self, vm_id: str) -> None:
        ask = session_pb2.Ask(ask_id="q1", vm_id=vm_id)
        self.wire.down.put_nowait(session_pb2.CenterMessage(ask=ask))

    def cut(self) -> None:
        self.wire.down.put_nowait(None)

    # ---- unary ----

    async def register(
        self, request: signaling_pb2.RegisterRequest
    ) -> signaling_pb2.RegisterResponse:
        self.registered.append(request)
        if self.refusal is not None:
            raise self.refusal
        reply = signaling_pb2.RegisterResponse()
        reply.record.location.server_id = self._server_id
        reply.record.location.epoch = max(request.epoch, 1)
        return reply

    async def deregister(
        self, request: signaling_pb2.DeregisterRequest
    ) -> signaling_pb2.DeregisterResponse:
        self.deregistered.append(request)
        return signaling_pb2.DeregisterResponse()

    async def report(self, request: signaling_pb2.ReportRequest) -> signaling_pb2.ReportResponse:
        raise LinkLost("reports go up the stream")

    async def lookup(self, request: signaling_pb2.LookupRequest) -> signaling_pb2.LookupResponse:
        raise LinkLost("no ledger here")

    async def close(self) -> None:
        """Nothing is held."""


def whole(network: WantedNetwork, revision: int = 1) -> NetworkPart:
    """A network in one message."""
    forwards = [(f.mac, f.vtep_address) for f in network.forwards]
    return NetworkPart(network, revision, network_digest(forwards, network.vteps))
