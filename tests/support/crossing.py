"""A move from a host in the east to one in the west, brought as far as a test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import Agent
from tests.support.country import Country, domain, find, neighbour, running_country, soon
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import by_id, deny_ssh, vm


class Crossing(Move):
    """VM 1 from the east's e1 to the west's w1. What the east says of it is what `get` and `done`
    say; `mirror` is the west's word."""

    def __init__(self, east: Lab, west: Lab, source: Agent, destination: Agent) -> None:
        super().__init__(east, source, destination)
        self.east, self.west = east, west

    @classmethod
    async def between(cls, country: Country, **facts: Any) -> Crossing:
        source = await country.east.agent("e1")
        destination = await country.west.agent("w1", vtep_address="198.51.100.201", **facts)
        await source.register(vm(1, profile=deny_ssh()))
        return cls(country.east, country.west, source, destination)

    async def begin(self, to: str = "west/w1") -> signaling.RelocateResponse:
        request = signaling.RelocateRequest(vm_id=VM, destination=to)
        reply = await self.east.operator.signaling.Relocate(request)
        self.id = reply.operation.operation_id
        return reply

    async def plan(self, to: str = "west/w1") -> signaling.RelocateResponse:
        request = signaling.RelocateRequest(vm_id=VM, destination=to, plan_only=True)
        return await self.east.operator.signaling.Relocate(request)

    async def mirror(self) -> operations.Operation:
        request = operations.GetOperationRequest(operation_id=self.id)
        return await self.west.operator.operations.Get(request)

    async def both_in(self, phase: int) -> None:
        async def reached() -> bool:
            mirror = self.west.center.ledger.table.operation(self.id)
            known = mirror is not None and (await self.mirror()).phase == phase
            return (await self.get()).phase == phase and known

        await soon(reached)

    async def to_the_end(self, phase: int) -> operations.Operation:
        """From this phase on, the rest of the way, on both sides."""
        done = await self.finish(phase)
        await self.ended()
        return done

    async def ended(self) -> operations.Operation:
        """The west has heard how it ended, and the east knows it."""

        async def told() -> bool:
            return (await self.get()).told

        await soon(told)
        return await self.mirror()


@asynccontextmanager
async def moving_country() -> AsyncIterator[Country]:
    """East and west, of whose callers the center's word and theirs are believed."""
    async with running_country() as country:
        await reconfigured(country, "admin")
        yield country


async def reconfigured(country: Country, vouches: str) -> None:
    """Returns when each finds its way to the others again."""
    await country.center.reconfigure(domains=believed(country, vouches))

    async def acquainted() -> bool:
        return await knows(country.east, "west") and await knows(country.west, "east")

    await soon(acquainted)


async def knows(lab: Lab, name: str) -> bool:
    """By way of the center."""
    center = await domain(lab, "center", tree=True)
    states = {below.name: below.state for below in center.domains}
    return states.get(name) == pb.DOMAIN_STATE_CURRENT


def believed(country: Country, vouches: str = "admin") -> Sequence[dict[str, str]]:
    return tuple(
        neighbour(lab, name, "child") | {"vouches": vouches}
        for lab, name in ((country.east, "east"), (country.west, "west"))
    )


async def found(lab: Lab) -> tuple[str, str, int]:
    """Authority, vServer and epoch, as this vCenter answers."""
    result = await find(lab, by_id(1))
    return result.authority, result.location.server_id, result.location.epoch


async def found_everywhere(country: Country, where: tuple[str, str, int]) -> None:
    async def agreed() -> bool:
        labs = (country.east, country.west, country.center)
        return {await found(lab) for lab in labs} == {where}

    await soon(agreed)


def state(lab: Lab) -> types.VmState.ValueType | None:
    """Of VM 1 in a ledger, if it is that ledger's own."""
    record = lab.center.ledger.table.vm(VM)
    if record is None or "/" in record.location.server_id:
        return None
    return types.VmState.Value(f"VM_STATE_{record.location.state.name}")
