"""6 and 5.5: a VM moves from one domain to another. One move id, one set of phases on both sides,
and authority that changes hands with the epoch, once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, PREPARE, RUNNING, START
from tests.support.country import Country, domain, find, neighbour, soon
from tests.support.crossing import Crossing, found_everywhere, moving_country
from tests.support.moving import PHASES, VM
from tests.support.nouns import by_id, deny_ssh, vm, vm_id

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
IN_THE_WEST, IN_THE_EAST = ("west", "w1", 2), ("east", "e1", 1)


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with moving_country() as country:
        yield country


async def test_a_vm_moves_to_another_domain(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    done = await move.to_the_end(PREPARING)
    assert done.phase == SUCCEEDED and done.receipt.bytes == 1_000_000
    assert (done.source, done.destination) == ("e1", "west/w1")
    assert (done.epoch_before, done.epoch_after) == (1, 2)
    mirror = await move.mirror()
    assert (mirror.source, mirror.destination) == ("east/e1", "w1")
    for side in (done, mirror):
        assert [p.phase for p in side.phases] == list(PHASES)
        assert side.receipt.policy_hash_before == side.receipt.policy_hash_after != ""
    assert mirror.requested_by == "operator/alice via east, center"
    await found_everywhere(country, IN_THE_WEST)
    at_home = await find(country.west, by_id(1))
    assert at_home.certainty == signaling.CERTAINTY_AUTHORITATIVE
    assert at_home.location.state == types.VM_STATE_RUNNING
    assert not await country.center.alerts(), "it was never in two places"


async def test_the_hosts_copy_straight_to_each_other(country: Country) -> None:
    """Each is told by its own vCenter where the other's tunnel end and migration address are."""
    move = await Crossing.between(country)
    await move.begin()
    prepared = (await move.prepare()).move
    copied = (await move.copy()).move
    assert (prepared.peer_server, prepared.peer_address) == ("east/e1", "198.51.100.1")
    assert (copied.peer_server, copied.peer_address) == ("west/w1", "198.51.100.201")
    assert copied.peer_migration_uri == "memory://w1"
    started = await move.destination.until_ordered(VM, START)
    assert started.move.epoch == 2 and started.ports == 2


async def test_back_again(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.to_the_end(PREPARING)
    back = Crossing(country.west, country.east, move.destination, move.source)
    await back.begin("east/e1")
    assert (await back.to_the_end(PREPARING)).phase == SUCCEEDED
    await found_everywhere(country, ("east", "e1", 3))
    assert country.east.center.ledger.table.tombstone(VM) is None
    grave = country.west.center.ledger.table.tombstone(VM)
    assert grave is not None and grave.last.location.server_id == "east/e1"


async def test_the_other_domain_chooses_the_host(country: Country) -> None:
    move = await Crossing.between(country)
    planned = await move.plan("west/")
    assert [m.destination for m in planned.moves] == ["west/w1"] and not planned.objections
    assert (await move.begin("west/")).operation.destination == "west/w1"
    assert (await move.to_the_end(PREPARING)).phase == SUCCEEDED


async def test_its_own_domains_name_may_be_said_too(country: Country) -> None:
    move = await Crossing.between(country)
    await country.east.agent("e2")
    reply = await move.begin("east/e2")
    assert reply.operation.destination == "e2"


async def test_asked_for_at_the_center(country: Country) -> None:
    move = await Crossing.between(country)
    request = signaling.RelocateRequest(vm_id=VM, destination="west/w1")

    async def known() -> bool:
        return (await find(country.center, by_id(1))).found

    await soon(known)
    reply = await country.center.operator.signaling.Relocate(request)
    move.id = reply.operation.operation_id
    assert (await move.to_the_end(PREPARING)).phase == SUCCEEDED
    assert (await move.mirror()).requested_by == "operator/alice via east, center"


# ---- several ----


async def test_a_group_moves_to_another_domain(country: Country) -> None:
    await country.east.group("web", deny_ssh())
    source, destination = await country.east.agent("e1"), await country.west.agent("w1")
    for number in (1, 2):
        await source.register(vm(number, group="web"))
    subject = signaling.RelocateRequest.GroupSubject(tenant="blue", group="web")
    request = signaling.RelocateRequest(group=subject, destination="west/")
    reply = await country.east.operator.signaling.Relocate(request)
    for number in (1, 2):
        wanted = await destination.until_ordered(vm_id(number), PREPARE)
        await destination.outcome(wanted, ABSENT, policy_hash=wanted.profile_hash)
        await source.outcome(await source.until_ordered(vm_id(number), COPY), ABSENT)
        await destination.outcome(await destination.until_ordered(vm_id(number), START), RUNNING)
        await source.outcome(await source.until_ordered(vm_id(number), CLEAN), ABSENT)
    wait = operations.WaitOperationRequest(operation_id=reply.operation.operation_id)
    wait.timeout.FromSeconds(60)
    done = await country.east.operator.operations.Wait(wait)
    assert (done.phase, done.parts.succeeded) == (SUCCEEDED, 2)
    listed = await country.west.operator.directory.ListVms(directory_pb2.ListVmsRequest())
    assert {r.location.server_id for r in listed.records} == {"w1"}


async def test_between_peers_without_a_center(country: Country) -> None:
    """Each follows the other, so that both know of both ledgers at every moment of the move."""
    for lab, other, name in (
        (country.east, country.west, "west"),
        (country.west, country.east, "east"),
    ):
        await lab.reconfigure(domains=(neighbour(other, name, "peer") | {"vouches": "admin"},))
    move = await Crossing.between(country)

    async def acquainted() -> bool:
        east, west = await domain(country.west, "east"), await domain(country.east, "west")
        return {east.state, west.state} == {pb.DOMAIN_STATE_CURRENT}

    await soon(acquainted)
    await move.begin()
    assert (await move.to_the_end(PREPARING)).phase == SUCCEEDED
    for lab in (country.east, country.west):
        assert not await lab.alerts()
