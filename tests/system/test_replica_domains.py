"""A move to a domain whose ledger several vCenters share, in a real etcd: the neighbour knows one
of them, and the destination's agent is attached to another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2 as operations
from tests.support.agent import ABSENT, CLEAN, COPY
from tests.support.country import domain, neighbour, soon
from tests.support.crossing import Crossing
from tests.support.lab import Lab, running_lab
from tests.support.moving import PHASES, VM
from tests.support.nouns import deny_ssh, vm
from tests.support.replicas import replicas

PREPARING, COPYING, _, _, SUCCEEDED = PHASES


@dataclass
class Sides:
    """`known` is the replica that the east addresses, `hosting` the one that w1 is attached to."""

    east: Lab
    known: Lab
    hosting: Lab

    async def crossing(self) -> Crossing:
        source = await self.east.agent("e1")
        destination = await self.hosting.agent("w1", vtep_address="198.51.100.201")
        await source.register(vm(1, profile=deny_ssh()))
        return Crossing(self.east, self.known, source, destination)


@pytest.fixture
async def sides(tmp_path: Path, etcd_address: str) -> AsyncIterator[Sides]:
    async with running_lab(domain="east", bookmark_seconds=0.1) as east:
        peer = neighbour(east, "east", "peer") | {"vouches": "admin"}
        settings = {"domain": "west", "domains": (peer,), "bookmark_seconds": 0.1}
        address = f"{etcd_address}/t{uuid4()}"
        async with replicas(tmp_path, address, lease_seconds=30.0, **settings) as west:
            known, hosting = west
            other = neighbour(known, "west", "peer") | {"vouches": "admin"}
            await east.reconfigure(domains=(other,))

            async def acquainted() -> bool:
                state = (await domain(east, "west")).state
                return state == pb.DOMAIN_STATE_CURRENT

            await soon(acquainted)
            yield Sides(east, known, hosting)
            await east.reconfigure(domains=())  # it asks the west no more, which ends first


async def test_what_its_host_says_is_heard_by_whichever_is_asked(sides: Sides) -> None:
    move = await sides.crossing()
    await move.begin()
    done = await move.to_the_end(PREPARING)
    assert done.phase == SUCCEEDED
    assert (await move.mirror()).phase == SUCCEEDED


async def test_likewise_when_the_move_goes_back(sides: Sides) -> None:
    move = await sides.crossing()
    await move.begin()
    await move.prepare()
    await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.stay()
    wanted = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(wanted, ABSENT)
    assert (await move.done()).phase == operations.PHASE_CANCELLED
    assert (await move.ended()).phase == operations.PHASE_CANCELLED
