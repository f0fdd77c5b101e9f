"""A move between two scripted agents, brought as far as a test wants it."""

from __future__ import annotations

from typing import Any

from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from tests.support.agent import ABORT, ABSENT, CLEAN, COPY, PREPARE, RUNNING, START, Agent
from tests.support.lab import Lab
from tests.support.nouns import deny_ssh, vm, vm_id

VM = vm_id(1)
PHASES = (
    operations.PHASE_PREPARING,
    operations.PHASE_COPYING,
    operations.PHASE_SWITCHING,
    operations.PHASE_SETTLING,
    operations.PHASE_SUCCEEDED,
)


class Move:
    """VM 1 from host-1 to host-2, asked for by the operator."""

    def __init__(self, lab: Lab, source: Agent, destination: Agent) -> None:
        self.lab = lab
        self.source = source
        self.destination = destination
        self.id = ""

    @classmethod
    async def ready(cls, lab: Lab, **facts: Any) -> Move:
        source, destination = await lab.agent("host-1"), await lab.agent("host-2", **facts)
        await source.register(vm(1, profile=deny_ssh()))
        return cls(lab, source, destination)

    async def begin(self) -> signaling.RelocateResponse:
        request = signaling.RelocateRequest(vm_id=VM, destination="host-2")
        reply = await self.lab.operator.signaling.Relocate(request)
        self.id = reply.operation.operation_id
        return reply

    # ---- the hosts do as they are told ----

    async def prepare(self) -> session.WantedVm:
        wanted = await self.destination.until_ordered(VM, PREPARE)
        await self.destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash)
        return wanted

    async def copy(self) -> session.WantedVm:
        wanted = await self.source.until_ordered(VM, COPY)
        await self.source.outcome(
            wanted,
            ABSENT,
            policy_hash=wanted.profile_hash,
            downtime_ms=12.5,
            bytes=1_000_000,
            iterations=3,
        )
        return wanted

    async def start(self) -> session.WantedVm:
        wanted = await self.destination.until_ordered(VM, START)
        await self.destination.outcome(wanted, RUNNING, policy_hash=wanted.profile_hash)
        return wanted

    async def clean(self) -> session.WantedVm:
        wanted = await self.source.until_ordered(VM, CLEAN)
        await self.source.outcome(wanted, ABSENT)
        return wanted

    async def go_back(self) -> None:
        """Both hosts answer to the order to go back: the source runs on, nothing is there."""
        await self.stay()
        await self.destination.outcome(await self.destination.until_ordered(VM, CLEAN), ABSENT)

    async def stay(self) -> None:
        """The source's part of going back; all that it takes where no copy was ever begun."""
        await self.source.outcome(await self.source.until_ordered(VM, ABORT), RUNNING)

    async def reach(self, phase: int) -> None:
        """Begins the move and brings it into the phase."""
        await self.begin()
        steps = (self.prepare, self.copy, self.start, self.clean)
        for step, reached in zip(steps, PHASES[1:], strict=True):
            if phase == PHASES[PHASES.index(reached) - 1]:
                break
            await step()
        await self.until(phase)

    async def finish(self, phase: int) -> operations.Operation:
        """From this phase on, the rest of the way."""
        steps = (self.prepare, self.copy, self.start, self.clean)
        for step in steps[PHASES.index(phase) :]:
            await step()
        return await self.done()

    # ---- what the vCenter says of it ----

    async def until(self, phase: int) -> operations.Operation:
        request = operations.GetOperationRequest(operation_id=self.id)
        async for operation in self.lab.operator.operations.Follow(request):
            if operation.phase == phase:
                return operation
        raise AssertionError(f"it ended as {operations.Phase.Name(operation.phase)}")

    async def done(self) -> operations.Operation:
        request = operations.WaitOperationRequest(operation_id=self.id)
        request.timeout.FromSeconds(10)
        operation = await self.lab.operator.operations.Wait(request)
        assert operation.done, operations.Phase.Name(operation.phase)
        return operation

    async def get(self) -> operations.Operation:
        request = operations.GetOperationRequest(operation_id=self.id)
        return await self.lab.operator.operations.Get(request)

    async def cancel(self) -> operations.Operation:
        request = operations.CancelOperationRequest(operation_id=self.id)
        return await self.lab.operator.operations.Cancel(request)

    async def owner(self) -> tuple[str, int]:
        location = (await self.lab.record(VM)).location
        return location.server_id, location.epoch


def order(agent: Agent) -> int:
    """The step that the host is asked for now; 0 = none."""
    return agent.vms[VM].move.step if VM in agent.vms else 0
