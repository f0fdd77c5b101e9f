"""Moves of several VMs, and agents that do whatever they are told."""

from __future__ import annotations

import asyncio
from typing import Any

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from tests.support.agent import ABORT, ABSENT, CLEAN, COPY, PREPARE, RUNNING, START, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab

QUEUED, UNDER_WAY = operations.PHASE_QUEUED, operations.PHASE_UNDER_WAY
SUCCEEDED, FAILED = operations.PHASE_SUCCEEDED, operations.PHASE_FAILED
CANCELLED, PREPARING = operations.PHASE_CANCELLED, operations.PHASE_PREPARING


async def hosts(lab: Lab, count: int = 3, **facts: Any) -> list[Agent]:
    return [await lab.agent(f"host-{n}", **facts) for n in range(1, count + 1)]


async def relocate(lab: Lab, **request: Any) -> pb.RelocateResponse:
    return await lab.operator.signaling.Relocate(pb.RelocateRequest(**request))


async def refused(lab: Lab, **request: Any) -> Reason:
    with lab.nothing_changes():
        call = lab.operator.signaling.Relocate(pb.RelocateRequest(**request))
        return (await refusal_of(call)).reason


async def get(lab: Lab, operation_id: str) -> operations.Operation:
    request = operations.GetOperationRequest(operation_id=operation_id)
    return await lab.operator.operations.Get(request)


async def parts(lab: Lab, parent: str) -> list[operations.Operation]:
    request = operations.ListOperationsRequest(parent=parent)
    return list((await lab.operator.operations.List(request)).operations)


async def ended(lab: Lab, operation_id: str) -> operations.Operation:
    request = operations.WaitOperationRequest(operation_id=operation_id)
    request.timeout.FromSeconds(10)
    operation = await lab.operator.operations.Wait(request)
    assert operation.done, operations.Phase.Name(operation.phase)
    return operation


class Willing:
    """Does whatever is ordered, as soon as it is heard; remembers how much it did at a time."""

    def __init__(self, agents: list[Agent]) -> None:
        self._agents = agents
        self._done: set[tuple[str, str, int]] = set()
        self.most = 0

    async def __aenter__(self) -> Willing:
        self._tasks = [asyncio.create_task(self._obey(agent)) for agent in self._agents]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _orders(self, agent: Agent) -> list[session.WantedVm]:
        return [w for w in agent.vms.values() if w.move.step and self._key(w) not in self._done]

    def _key(self, wanted: session.WantedVm) -> tuple[str, str, int]:
        return wanted.move.operation_id, wanted.vm.vm_id, wanted.move.step

    async def _obey(self, agent: Agent) -> None:
        truth = {COPY: ABSENT, START: RUNNING, ABORT: RUNNING, CLEAN: ABSENT, PREPARE: ABSENT}
        while True:
            await agent.until(lambda: self._orders(agent))
            copying = [w for w in agent.vms.values() if w.move.step == COPY]
            self.most = max(self.most, len(copying))
            for wanted in self._orders(agent):
                self._done.add(self._key(wanted))
                step = wanted.move.step
                await agent.outcome(wanted, truth[step], policy_hash=wanted.profile_hash)
