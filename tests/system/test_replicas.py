"""Two vCenters over one ledger in a real etcd: one history, whoever writes and whoever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from common.clock import SystemClock
from common.pb.vsignal.v1 import inventory_pb2, operations_pb2, signaling_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, PREPARE, RUNNING, START
from tests.support.lab import Lab
from tests.support.nouns import by_id, by_ip, interface, vm, vm_id
from tests.support.replicas import replicas

CLOCK = SystemClock()


@pytest.fixture
async def labs(tmp_path: Path, etcd_address: str) -> AsyncIterator[list[Lab]]:
    async with replicas(tmp_path, f"{etcd_address}/t{uuid4()}") as labs:
        yield labs


async def until_alike(labs: list[Lab]) -> None:
    """Every replica has what any of them has."""
    last = max(lab.revision for lab in labs)
    for lab in labs:
        assert await lab.center.ledger.feed.reached(last, 5.0)


async def test_what_one_replica_writes_the_other_answers(labs: list[Lab]) -> None:
    a, b = labs
    h1 = await a.agent("h1")
    await h1.register(vm(1))
    await until_alike(labs)
    for lab in labs:
        answer = await lab.operator.directory.Lookup(
            signaling_pb2.LookupRequest(keys=[by_ip(1), by_id(1)])
        )
        assert [r.location.server_id for r in answer.results] == ["h1", "h1"]
        assert {r.certainty for r in answer.results} == {signaling_pb2.CERTAINTY_AUTHORITATIVE}
    assert (await a.record(vm_id(1))) == (await b.record(vm_id(1)))


async def test_both_write_at_once_and_nobody_is_refused(labs: list[Lab]) -> None:
    async def write(lab: Lab, number: int) -> None:
        group = types.Group(tenant="blue", name=f"{lab.folder.name}{number}")
        await lab.operator.inventory.PutGroup(inventory_pb2.PutGroupRequest(group=group))

    await asyncio.gather(*(write(lab, n) for n in range(200) for lab in labs))
    await until_alike(labs)
    for lab in labs:
        listed = await lab.operator.inventory.ListGroups(
            inventory_pb2.ListGroupsRequest(tenant="blue")
        )
        assert len(listed.groups) == 400


async def test_an_address_that_two_vms_claim_at_two_replicas_goes_to_one(labs: list[Lab]) -> None:
    """No key is written by both: what is compared is the whole history."""
    agents = [await lab.agent(name) for lab, name in zip(labs, ("h1", "h2"), strict=True)]
    for number in range(1, 40, 2):
        claims = [interface(number), interface(number)]
        vms = [vm(number + n, interfaces=[claims[n]]) for n in (0, 1)]
        results = await asyncio.gather(
            *(agent.register(v) for agent, v in zip(agents, vms, strict=True)),
            return_exceptions=True,
        )
        refused = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
        assert [e.code() for e in refused] == [grpc.StatusCode.ALREADY_EXISTS]
    await until_alike(labs)
    assert len(await labs[0].alerts("CLAIM_HELD")) == 20


async def test_an_agent_is_silent_only_when_nobody_hears_it(labs: list[Lab]) -> None:
    """Its lease is the business of the replica that it is attached to; the other one waits."""
    a, b = labs
    h1 = await a.agent("h1")
    for _ in range(12):
        await asyncio.sleep(0.25)
        await h1.say(report=signaling_pb2.ReportRequest())
    assert (await b.server("h1")).server.liveness == types.LIVENESS_ATTACHED
    assert (await b.server("h1")).server.attached_to == "a"
    await h1.detach()
    async with asyncio.timeout(6.0):
        while (await b.server("h1")).server.liveness != types.LIVENESS_SILENT:
            await CLOCK.sleep(0.05)


async def test_an_agent_that_comes_to_another_replica_leaves_the_first(labs: list[Lab]) -> None:
    a, b = labs
    old = await a.agent("h1")
    new = await b.agent("h1")
    await old.until(lambda: not old.attached)
    assert new.attached
    assert (await a.server("h1")).server.attached_to == "b"


async def test_an_order_reaches_an_agent_wherever_it_is_attached(labs: list[Lab]) -> None:
    """The move is asked for at one replica; each host hears its part at its own."""
    a, b = labs
    h1, h2 = await a.agent("h1"), await b.agent("h2")
    await h1.register(vm(1))
    await until_alike(labs)
    request = signaling_pb2.RelocateRequest(vm_id=vm_id(1), destination="h2")
    operation = (await b.operator.signaling.Relocate(request)).operation
    await until_alike(labs)
    following = a.operator.operations.Wait(
        operations_pb2.WaitOperationRequest(operation_id=operation.operation_id)
    )
    await h2.outcome(await h2.until_ordered(vm_id(1), PREPARE), ABSENT, policy_hash="x")
    await h1.outcome(await h1.until_ordered(vm_id(1), COPY), ABSENT)
    await h2.outcome(await h2.until_ordered(vm_id(1), START), RUNNING)
    await h1.outcome(await h1.until_ordered(vm_id(1), CLEAN), ABSENT)
    assert (await following).phase == operations_pb2.PHASE_SUCCEEDED
    assert (await a.record(vm_id(1))).location.server_id == "h2"


async def test_both_hosts_of_an_arrival_are_asked_wherever_they_are_attached(
    labs: list[Lab],
) -> None:
    a, b = labs
    h1, h2 = await a.agent("h1"), await b.agent("h2")
    await h1.register(vm(1))
    await until_alike(labs)
    h1.truth[vm_id(1)], h2.truth[vm_id(1)] = ABSENT, RUNNING
    arrived = await h2.register(vm(1))
    assert arrived.outcome == signaling_pb2.REGISTER_OUTCOME_ARRIVED
    assert [ask.vm_id for ask in h1.asked] == [ask.vm_id for ask in h2.asked] == [vm_id(1)]
    assert (await b.record(vm_id(1))).location.server_id == "h2"
