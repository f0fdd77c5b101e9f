"""6, signaling between vCenters (A4, A11, A20): each is the authority for its own domain, and
whoever is asked answers for all, saying how sure it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, signaling_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.country import (
    Country,
    domain,
    find,
    found_at,
    neighbour,
    registered,
    running_country,
    soon,
)
from tests.support.nouns import by_id, by_ip, by_mac, vm, vm_id

KEYS = [by_id, by_mac, by_ip]


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with running_country() as country:
        yield country


@pytest.mark.parametrize("key", KEYS)
async def test_a_vm_is_found_from_everywhere(
    country: Country, key: Callable[[int], types.VmKey]
) -> None:
    await registered(country)
    at_home = await find(country.east, key(1))
    assert at_home.certainty == signaling_pb2.CERTAINTY_AUTHORITATIVE
    for lab in (country.center, country.west):
        result = await find(lab, key(1))
        assert (result.vm_id, result.location) == (vm_id(1), at_home.location)
        assert (result.server_name, result.vtep_address) == ("e1.example", at_home.vtep_address)
        assert result.authority == "east"
        assert result.certainty == signaling_pb2.CERTAINTY_CACHED
        assert result.HasField("age")


async def test_a_tenant_finds_its_own_in_other_domains_and_nothing_else(country: Country) -> None:
    await registered(country)
    request = signaling_pb2.LookupRequest(keys=[by_id(1)])
    for tenant, sees in (("blue", True), ("red", False)):
        caller = country.center.client(f"tenant/{tenant}")
        (result,) = (await caller.directory.Lookup(request)).results
        assert result.found is sees


async def test_a_batch_is_answered_like_single_lookups(country: Country) -> None:
    await registered(country)
    batch = signaling_pb2.LookupRequest(keys=[by_id(2), by_id(1)])
    request = directory_pb2.BatchLookupRequest(batches=[batch, batch])
    answer = await country.center.operator.directory.BatchLookup(request)
    found = [[r.authority for r in b.results if r.found] for b in answer.batches]
    assert found == [["east"], ["east"]]


async def test_changes_and_departures_are_followed(country: Country) -> None:
    await registered(country)
    (agent,) = country.east._agents
    changed = vm(1)
    changed.name = "renamed"
    await agent.register(changed)

    async def renamed() -> bool:
        return (await find(country.center, by_id(1))).name == "renamed"

    await soon(renamed)
    await agent.deregister(vm_id(1), 1)

    async def gone() -> bool:
        return not (await find(country.center, by_id(1))).found

    await soon(gone)
    missing = await find(country.center, by_id(1))
    assert missing.certainty == signaling_pb2.CERTAINTY_CACHED, "the center is no authority there"
    assert not missing.not_asked


async def test_what_cannot_be_reached_is_stale_and_said_to_be(country: Country) -> None:
    await registered(country)
    await country.east.stop()

    async def stale() -> bool:
        return (await domain(country.center, "east")).state == pb.DOMAIN_STATE_STALE

    await soon(stale)
    known = await find(country.center, by_id(1))
    assert known.found and known.certainty == signaling_pb2.CERTAINTY_STALE
    assert known.HasField("stale_since")
    unknown = await find(country.center, by_id(2))
    assert not unknown.found
    assert unknown.certainty == signaling_pb2.CERTAINTY_STALE
    assert list(unknown.not_asked) == ["east"]
    assert list((await find(country.west, by_id(2))).not_asked) == ["east"], "each is named once"
    await country.east.start()
    await soon(lambda: found_at(country.center, "east"))

    async def current() -> bool:
        found = await find(country.center, by_id(1))
        return found.certainty == signaling_pb2.CERTAINTY_CACHED

    await soon(current)


async def test_alone_each_goes_on_with_its_own(country: Country) -> None:
    await registered(country)
    await country.center.stop()
    own = await find(country.east, by_id(1))
    assert own.certainty == signaling_pb2.CERTAINTY_AUTHORITATIVE
    await country.east._agents[0].register(vm(2))
    assert (await find(country.east, by_id(2))).found
    elsewhere = await find(country.west, by_id(1))
    assert not elsewhere.found and list(elsewhere.not_asked) == ["center"]
    await country.center.start()
    await soon(lambda: found_at(country.west, "east", 2))


async def test_a_center_that_lost_everything_is_rebuilt_from_below(country: Country) -> None:
    await registered(country)
    await country.center.restart()
    await soon(lambda: found_at(country.center, "east"))
    east = await domain(country.center, "east")
    assert (east.vms, east.servers, east.state) == (1, 1, pb.DOMAIN_STATE_CURRENT)


@pytest.mark.parametrize("same", ["vm", "address"])
async def test_one_identity_in_two_domains_is_shown_with_both_sides(
    country: Country, same: str
) -> None:
    await registered(country)
    twin = vm(1)
    if same == "address":
        twin.vm_id = vm_id(9)
    await (await country.west.agent("w1")).register(twin)
    reason = Reason.RUNNING_IN_TWO_PLACES if same == "vm" else Reason.CLAIM_HELD

    async def alarmed() -> bool:
        return bool(await country.center.alerts(reason.name))

    await soon(alarmed)
    (alert,) = await country.center.alerts(reason.name)
    sides = {alert.evidence["domain"], alert.evidence["holder_domain"]}
    assert sides == {"east", "west"}
    assert {alert.server_id, alert.evidence["holder_server"]} == {"e1", "w1"}


async def test_the_tree_is_shown_from_the_top(country: Country) -> None:
    await registered(country)
    top = await country.lab("top", neighbour(country.center, "center", "child"))
    center = await domain(top, "center", tree=True)
    assert [(d.name, d.relation) for d in center.domains] == [
        ("east", pb.RELATION_CHILD),
        ("west", pb.RELATION_CHILD),
    ]
    assert center.domains[0].vms == 1
    assert not (await domain(top, "center")).domains


async def test_what_is_two_levels_down_is_found_from_the_top(country: Country) -> None:
    """Top follows the center's ledger, which has nothing of the east's; so the center is asked."""
    await registered(country)
    top = await country.lab("top", neighbour(country.center, "center", "child"))
    await soon(lambda: found_at(top, "east"))
    assert (await find(top, by_id(1))).certainty == signaling_pb2.CERTAINTY_CACHED

    async def everybody_answers() -> bool:
        return not (await find(top, by_id(2))).not_asked

    await soon(everybody_answers)
    tenant = top.client("tenant/blue").directory
    (result,) = (await tenant.Lookup(signaling_pb2.LookupRequest(keys=[by_id(1)]))).results
    assert not result.found and list(result.not_asked) == ["center"]
    await country.center.stop()

    async def stale() -> bool:
        return list((await find(top, by_id(1))).not_asked) == ["center"]

    await soon(stale)
    assert not (await find(top, by_id(1))).found
    await country.center.start()
    await soon(lambda: found_at(top, "east"))


async def test_a_domain_under_a_wrong_name_is_refused(country: Country) -> None:
    wrong = neighbour(country.east, "elsewhere", "child")
    await country.center.reconfigure(domains=(wrong,))

    async def refused() -> bool:
        return (await domain(country.center, "elsewhere")).state == pb.DOMAIN_STATE_REFUSED

    await soon(refused)
    assert "east" in (await domain(country.center, "elsewhere")).problem
    assert not (await find(country.center, by_id(1))).found


async def test_a_loop_is_refused(country: Country) -> None:
    await country.east.reconfigure(domains=(neighbour(country.center, "center", "child"),))

    async def refused() -> bool:
        return (await domain(country.east, "center")).state == pb.DOMAIN_STATE_REFUSED

    await soon(refused)
    assert "child" in (await domain(country.east, "center")).problem
