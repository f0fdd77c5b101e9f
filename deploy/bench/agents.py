"""Simulated agents: real streams of the contract, without a host behind them.

`python -m deploy.bench.agents TARGET FIRST COUNT OF EVERY` attaches COUNT agents, from number FIRST
on, each over a connection of its own, out of OF that share the population of `attach`. They report
every EVERY seconds, and attach again when their stream ends. It prints its counts as JSON when all
are attached, and after every line that comes in: after `again` once all have attached once more.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any

import grpc.aio

from common.codec.server import to_server
from common.lifecycle import use_all_files
from common.pb.vsignal.v1 import session_pb2 as pb
from common.pb.vsignal.v1 import session_pb2_grpc, signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from common.rpc import channel, identity
from common.status import refusal_from_call
from deploy.bench.population import Population, server, server_id

VMS_EACH = 10
AT_ONCE = 50  # connections that are being made at a time
LOST = (grpc.aio.AioRpcError, asyncio.InvalidStateError, EOFError)


def shared(agents: int) -> Population:
    """Ten VMs an agent, a hundred agents a network."""
    population = Population(agents * VMS_EACH, spread=VMS_EACH)
    population.networks = max(1, agents // 100)
    return population


class Agent:
    """What one agent holds, by digest."""

    def __init__(self, number: int, told: "Counter[str] | None" = None) -> None:
        self._number = number
        self._vms: dict[str, int] = {}
        self._networks: dict[int, int] = {}
        self.told = Counter() if told is None else told

    async def attach(self, link: grpc.aio.Channel) -> Any:
        """The call, when everything was heard. Told to wait, it waits, as agents do."""
        stub = session_pb2_grpc.SessionStub(link)
        while True:
            call: Any = stub.Attach(metadata=identity(f"vserver/{server_id(self._number)}"))
            try:
                await call.write(pb.AgentMessage(hello=self._hello()))
                while await self.hear(call) != "synced":
                    pass
                return call
            except grpc.aio.AioRpcError as error:
                refusal = refusal_from_call(error)
                if refusal is None or refusal.retry_after is None:
                    raise
                self.told["told to wait"] += 1
                await asyncio.sleep(refusal.retry_after * random.uniform(1.0, 1.25))

    def _hello(self) -> pb.Hello:
        hello = pb.Hello(server=to_server(server(self._number)))
        for vm_id, digest in self._vms.items():
            hello.vms.add(vm_id=vm_id, digest=digest)
        for vni, digest in self._networks.items():
            hello.networks.add(vni=vni, digest=digest)
        return hello

    async def hear(self, call: Any) -> str:
        """The kind of the next message. Raises one of `LOST`."""
        try:
            message = await call.read()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise EOFError from error  # so grpc.aio says that the vCenter has ended the call
        if message is grpc.aio.EOF:
            raise EOFError
        kind = str(message.WhichOneof("message"))
        self.told["messages"] += 1
        self.told["bytes"] += message.ByteSize()
        if kind == "vm":
            self._vms[message.vm.vm.vm_id] = message.vm.digest
        elif kind == "network":
            self._networks[message.network.vni] = message.network.digest
        elif kind == "network_change":
            self._networks[message.network_change.vni] = message.network_change.digest
        return kind


class Agents:
    """Many, until `run` is cancelled. `all_attached` is set each time that all have attached."""

    def __init__(self, target: str, every: float, count: int) -> None:
        self._target = target
        self._every = every
        self._count = count
        self._connecting = asyncio.Semaphore(AT_ONCE)
        self.told: Counter[str] = Counter()
        self.all_attached = asyncio.Event()

    async def run(self, number: int, vm_ids: list[str]) -> None:
        """One agent."""
        agent, link = Agent(number, self.told), channel(self._target)
        try:
            while True:
                try:
                    await self._attached(agent, link, vm_ids)
                except* LOST:
                    self.told["lost"] += 1
                await asyncio.sleep(random.uniform(0.1, 1.0))
        finally:
            await link.close()

    async def _attached(self, agent: Agent, link: grpc.aio.Channel, vm_ids: list[str]) -> None:
        async with self._connecting:
            call = await agent.attach(link)
        try:
            self.told["attached"] += 1
            if self.told["attached"] % self._count == 0:
                self.all_attached.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat(call, vm_ids))
                while True:
                    await agent.hear(call)
        finally:
            call.cancel()

    async def _beat(self, call: Any, vm_ids: list[str]) -> None:
        running = types.VM_STATE_RUNNING
        vms = [signaling_pb2.VmStatus(vm_id=i, epoch=1, state=running) for i in vm_ids]
        report = signaling_pb2.ReportRequest(vms=vms, complete=True)
        report.server.cpu_percent = 20.0
        await asyncio.sleep(random.uniform(0.0, self._every))
        while True:
            await call.write(pb.AgentMessage(report=report))
            self.told["reports"] += 1
            await asyncio.sleep(self._every)


async def _main(target: str, first: int, count: int, of: int, every: float) -> None:
    owned: dict[int, list[str]] = {}
    for guest in shared(of).guests():
        owned.setdefault(guest.server, []).append(guest.vm_id)
    agents = Agents(target, every, count)
    running = [asyncio.create_task(agents.run(n, owned[n])) for n in range(first, first + count)]
    lines = asyncio.get_running_loop().run_in_executor
    line = "again"
    while line:
        if line == "again":
            await agents.all_attached.wait()
            agents.all_attached.clear()
        print(json.dumps(agents.told), flush=True)
        line = (await lines(None, sys.stdin.readline)).strip()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    use_all_files()
    target, first, count, of, every = sys.argv[1:]
    asyncio.run(_main(target, int(first), int(count), int(of), float(every)))
