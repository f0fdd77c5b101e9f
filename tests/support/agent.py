"""A vServer's agent that does what a test tells it: a real client of the contract.

It attaches, keeps what it hears, answers Asks with `truth`, and sends what the test wants sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from common.model.profile import Capability
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import Client

WAIT_S = 10.0
ENFORCES = [
    types.CAPABILITY_ACL,
    types.CAPABILITY_RATE,
    types.CAPABILITY_ANTI_SPOOFING,
]
assert len(Capability) > len(ENFORCES)  # VLAN and priority are beyond it, as on a plain Linux host

PREPARE, COPY, START = (
    session.MOVE_STEP_PREPARE,
    session.MOVE_STEP_COPY,
    session.MOVE_STEP_START,
)
MIRROR = session.MOVE_STEP_MIRROR
CLEAN, ABORT = session.MOVE_STEP_CLEAN, session.MOVE_STEP_ABORT
ABSENT, RUNNING = session.HOSTED_STATE_ABSENT, session.HOSTED_STATE_RUNNING
HELD = session.HOSTED_STATE_HELD
UNKNOWN, SHUT_OFF = session.HOSTED_STATE_UNKNOWN, session.HOSTED_STATE_SHUT_OFF
SILENT = None  # does not answer at all


class Agent:
    """`truth[vm_id]` answers Asks: ABSENT (default), RUNNING, UNKNOWN, or SILENT."""

    def __init__(self, client: Client, server_id: str, **facts: Any) -> None:
        number = int("".join(c for c in server_id if c.isdigit()) or "0")
        self.client = client
        self.server_id = server_id
        self.server = types.Server(
            **{
                "server_id": server_id,
                "name": f"{server_id}.example",
                "management_address": f"192.0.2.{number}",
                "vtep_address": f"198.51.100.{number}",
                "capacity": types.Resources(vcpus=32, memory_mib=32_768),
                "hypervisor": "memory",
                "capabilities": ENFORCES,
                "migration_uri": f"memory://{server_id}",
                "keeps_standbys": True,
                "carries_disks": True,
            }
            | facts
        )
        self.truth: dict[str, int | None] = {}
        self.attached = False
        self._forget()

    def _forget(self) -> None:
        self.welcome: session.Welcome | None = None
        self.vms: dict[str, session.WantedVm] = {}
        self.networks: dict[int, session.WantedNetwork] = {}
        self.asked: list[session.Ask] = []
        self.heard: list[session.CenterMessage] = []
        self.synced = 0
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    # ---- the stream ----

    async def attach(self, resume: bool = False) -> None:
        """Returns when everything that the vCenter wants of this host has been heard; `resume`: or
        what differs from what it holds already."""
        hello = session.Hello(server=self.server, version="test")
        vms, networks = (self.vms, self.networks) if resume else ({}, {})
        for vm_id, wanted in vms.items():
            hello.vms.add(vm_id=vm_id, digest=wanted.digest)
        for vni, network in networks.items():
            hello.networks.add(vni=vni, digest=network.digest)
        self._forget()
        self.vms, self.networks = vms, networks
        self._stream = self.client.session.Attach(timeout=None)
        self.attached = True
        await self.say(hello=hello)
        self._listening = asyncio.create_task(self._listen())
        await self.until(lambda: self.synced > 0)

    async def detach(self) -> None:
        """The connection is cut; nothing is said."""
        if not self.attached:
            return
        self.attached = False
        self._stream.cancel()
        with suppress(asyncio.CancelledError, grpc.RpcError):
            await self._listening

    @asynccontextmanager
    async def beating(self, every: float = 0.05) -> AsyncIterator[None]:
        """Reports on a beat, as an agent does, so that its lease does not lapse."""

        async def beat() -> None:
            while self.attached:
                await self.say(report=signaling.ReportRequest())
                await asyncio.sleep(every)

        beats = asyncio.create_task(beat())
        try:
            yield
        finally:
            beats.cancel()

    async def say(self, **message: Any) -> None:
        async with self._writing:  # gRPC takes one write at a time
            await self._stream.write(session.AgentMessage(**message))

    async def _listen(self) -> None:
        while (message := await self._stream.read()) is not grpc.aio.EOF:
            await self._take(message)
        self.attached = False
        async with self._changed:
            self._changed.notify_all()

    async def _take(self, message: session.CenterMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "ask" and (state := self.truth.get(message.ask.vm_id, ABSENT)) is not SILENT:
            ask = message.ask
            answer = session.Answer(ask_id=ask.ask_id, vm_id=ask.vm_id, state=state)
            await self.say(answer=answer)
        async with self._changed:
            self.heard.append(message)
            self._keep(kind, message)
            self._changed.notify_all()

    def _keep(self, kind: str | None, message: session.CenterMessage) -> None:
        if kind == "welcome":
            self.welcome = message.welcome
        elif kind == "vm":
            self.vms[message.vm.vm.vm_id] = message.vm
        elif kind == "vm_gone":
            self.vms.pop(message.vm_gone, None)
        elif kind == "network":
            self.networks[message.network.vni] = message.network
        elif kind == "network_change":
            _change(self.networks[message.network_change.vni], message.network_change)
        elif kind == "network_gone":
            self.networks.pop(message.network_gone, None)
        elif kind == "ask":
            self.asked.append(message.ask)
        elif kind == "synced":
            self.synced = message.synced.revision

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_ordered(self, vm_id: str, step: int) -> session.WantedVm:
        """Waits for the order of one step, and returns what is wanted of the VM with it."""

        def ordered() -> bool:
            return vm_id in self.vms and self.vms[vm_id].move.step == step

        await self.until(ordered)
        return self.vms[vm_id]

    async def until_gone(self, vm_id: str) -> None:
        await self.until(lambda: vm_id not in self.vms)

    # ---- calls ----

    async def register(
        self, vm: types.Vm, state: int = types.VM_STATE_RUNNING, epoch: int = 0
    ) -> signaling.RegisterResponse:
        request = signaling.RegisterRequest(vm=vm, state=state, epoch=epoch)
        return await self.client.signaling.Register(request)

    async def deregister(self, vm_id: str, epoch: int) -> signaling.DeregisterResponse:
        request = signaling.DeregisterRequest(vm_id=vm_id, epoch=epoch)
        return await self.client.signaling.Deregister(request)

    async def report(self, *statuses: signaling.VmStatus, **rest: Any) -> signaling.ReportResponse:
        return await self.client.signaling.Report(signaling.ReportRequest(vms=statuses, **rest))

    async def outcome(self, wanted: session.WantedVm, truth: int, **said: Any) -> None:
        """Answers an order; `ok` unless said otherwise."""
        order = wanted.move
        await self.say(
            outcome=session.MoveOutcome(
                **{
                    "operation_id": order.operation_id,
                    "vm_id": wanted.vm.vm_id,
                    "epoch": order.epoch,
                    "step": order.step,
                    "ok": True,
                    "truth": truth,
                }
                | said
            )
        )


def _change(network: session.WantedNetwork, change: session.NetworkChange) -> None:
    assert change.before == network.digest, "a change does not fit what was said before it"
    new = {f.mac for f in change.forwards}
    kept = [f for f in network.forwards if f.mac not in new | set(change.macs_gone)]
    ends = (set(network.vtep_addresses) | set(change.vtep_addresses)) - set(change.vteps_gone)
    del network.forwards[:], network.vtep_addresses[:]
    network.forwards.extend([*kept, *change.forwards])
    network.vtep_addresses.extend(sorted(ends))
    network.digest, network.revision = change.digest, change.revision
