"""6: what a domain tells another one is the teller's to configure: everything, the VMs of some
tenants, or answers to lookups and nothing that could be followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from common import rpc
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, federation_pb2_grpc, signaling_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import TIMEOUT_S, refusal_of
from tests.support.country import (
    Country,
    domain,
    find,
    found_at,
    neighbour,
    running_country,
    soon,
)
from tests.support.lab import Lab
from tests.support.nouns import by_id, by_ip, by_mac, vm
from vcenter.federation.settings import DomainSettings

BLUE, RED = 1, 2  # VMs, of these tenants


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with running_country() as country:
        yield country


async def tell_the_center(country: Country, **tells: Any) -> None:
    """The east has a VM of either tenant, and says this much of them."""
    center = neighbour(country.center, "center", "parent") | tells
    await country.east.reconfigure(domains=(center,))
    agent = await country.east.agent("e1")
    await agent.register(vm(BLUE))
    await agent.register(vm(RED, "red"))

    async def heard() -> bool:
        east = await domain(country.center, "east")
        return east.state == pb.DOMAIN_STATE_CURRENT and east.revision >= country.east.revision

    await soon(heard)


async def copied(country: Country) -> tuple[int, int]:
    """VMs and vServers of the east that the center has a copy of."""
    east = await domain(country.center, "east")
    return east.vms, east.servers


async def seen(lab: Lab, key: types.VmKey) -> tuple[bool, signaling_pb2.Certainty.ValueType]:
    result = await find(lab, key)
    return result.found, result.certainty


async def test_everything_unless_something_is_said(country: Country) -> None:
    await tell_the_center(country)
    assert await copied(country) == (2, 1)


async def test_some_tenants_vms_and_the_vservers_that_they_are_on(country: Country) -> None:
    await tell_the_center(country, tells="tenants", tenants=("blue",))
    assert await copied(country) == (1, 1)
    cached = signaling_pb2.CERTAINTY_CACHED
    for blue, red in ((by_id(BLUE), by_id(RED)), (by_mac(BLUE), by_mac(RED, 200))):
        assert await seen(country.center, blue) == (True, cached)
        assert await seen(country.center, red) == (False, cached)


async def test_who_may_hear_of_some_tenants_hears_of_no_other_by_asking(country: Country) -> None:
    await tell_the_center(country, tells="tenants", tenants=("blue",))
    center = country.east.client("domain/center")
    blue, red = [by_id(BLUE), by_mac(BLUE), by_ip(BLUE)], [by_id(RED), by_mac(RED, 200)]
    request = signaling_pb2.LookupRequest(keys=[*blue, *red])
    answers = (await center.directory.Lookup(request)).results
    assert [answer.found for answer in answers] == [True, True, True, False, False]
    listed = await center.directory.ListVms(directory_pb2.ListVmsRequest())
    assert [record.vm.tenant for record in listed.records] == ["blue"]
    counted = await center.directory.CountVms(directory_pb2.CountVmsRequest())
    assert counted.vms == 1


async def test_answers_to_lookups_and_nothing_to_follow(country: Country) -> None:
    await tell_the_center(country, tells="lookups")
    assert await copied(country) == (0, 0)
    for number in (BLUE, RED):
        result = await find(country.center, by_id(number))
        assert (result.authority, result.certainty) == (
            "east",
            signaling_pb2.CERTAINTY_AUTHORITATIVE,
        )
    listed = await country.east.client("domain/center").directory.ListVms(
        directory_pb2.ListVmsRequest()
    )
    assert not listed.records


async def test_who_answers_lookups_only_and_is_silent_was_not_asked(country: Country) -> None:
    await tell_the_center(country, tells="lookups")
    await country.east.stop()

    async def silent() -> bool:
        result = await find(country.center, by_id(BLUE))
        return result.certainty == signaling_pb2.CERTAINTY_STALE

    await soon(silent)
    result = await find(country.center, by_id(BLUE))
    await country.east.start()
    assert not result.found and list(result.not_asked) == ["east"]


async def test_what_each_is_told_is_shown_to_operators_and_to_itself(country: Country) -> None:
    await tell_the_center(country, tells="tenants", tenants=("blue", "red"))
    told = await domain(country.east, "center")
    assert (told.tells, list(told.tenants)) == (pb.TELLING_TENANTS, ["blue", "red"])
    for name, tells in (("center", pb.TELLING_TENANTS), ("west", pb.TELLING_UNSPECIFIED)):
        asked = country.east.client(f"domain/{name}").federation
        answer = await asked.ListDomains(pb.ListDomainsRequest())
        assert [d.tells for d in answer.domain.domains] == [tells]


# ---- by command ----


async def tell(lab: Lab, tells: pb.Telling.ValueType = 0, *tenants: str) -> None:
    """The center may learn this much of the lab; 0: what is configured."""
    request = pb.TellRequest(domain="center", tells=tells, tenants=tenants)
    await lab.operator.federation.Tell(request)


async def becomes(country: Country, vms: int, servers: int) -> None:
    async def holds() -> bool:
        east = await domain(country.center, "east")
        current = east.state == pb.DOMAIN_STATE_CURRENT
        return current and (east.vms, east.servers) == (vms, servers)

    await soon(holds)


async def test_it_is_changed_by_command_and_what_was_told_before_is_forgotten(
    country: Country,
) -> None:
    await tell_the_center(country)
    assert await copied(country) == (2, 1)
    await tell(country.east, pb.TELLING_TENANTS, "red")
    await becomes(country, 1, 1)
    assert (await seen(country.center, by_id(BLUE)))[0] is False
    assert (await seen(country.center, by_id(RED)))[0] is True
    await tell(country.east, pb.TELLING_LOOKUPS)
    await becomes(country, 0, 0)
    await soon(lambda: found_at(country.center, "east", BLUE))
    assert (await find(country.center, by_id(BLUE))).certainty == (
        signaling_pb2.CERTAINTY_AUTHORITATIVE
    )
    await tell(country.east, pb.TELLING_EVERYTHING)
    await becomes(country, 2, 1)


async def test_who_was_away_meanwhile_is_told_by_the_new_rule_alone(country: Country) -> None:
    await tell_the_center(country)
    await country.center.stop()
    await tell(country.east, pb.TELLING_TENANTS, "red")
    changed = country.east.revision
    watching = country.east.client("domain/center").directory
    for position in (changed - 1, changed - 2):
        request = directory_pb2.WatchRequest(from_revision=position)
        events = [event async for event in watching.Watch(request)]
        assert events[-1].resync and events[-1].revision == changed
        assert all(event.revision < changed for event in events[:-1])
    await country.center.start()
    await becomes(country, 1, 1)


async def test_a_command_outlives_a_restart_until_the_configuration_counts_again(
    country: Country,
) -> None:
    await tell_the_center(country, tells="tenants", tenants=("blue",))
    await tell(country.east, pb.TELLING_LOOKUPS)
    await country.east.restart()
    told = await domain(country.east, "center")
    assert (told.tells, told.tells_by_command) == (pb.TELLING_LOOKUPS, True)
    await tell(country.east)
    told = await domain(country.east, "center")
    assert (told.tells, list(told.tenants)) == (pb.TELLING_TENANTS, ["blue"])
    assert not told.tells_by_command
    await becomes(country, 1, 1)


async def test_a_change_of_the_configuration_is_a_change_too(country: Country) -> None:
    await tell_the_center(country)
    center = neighbour(country.center, "center", "parent")
    await country.east.reconfigure(domains=(center | {"tells": "tenants", "tenants": ("red",)},))
    await becomes(country, 1, 1)
    assert (await seen(country.center, by_id(BLUE)))[0] is False


async def test_who_is_told_less_hears_no_count_of_the_rest(country: Country) -> None:
    await tell_the_center(country)
    center = country.east.client("domain/center").federation
    for tells, tenants, counts in (
        (pb.TELLING_EVERYTHING, (), (2, 1)),
        (pb.TELLING_TENANTS, ("blue",), (1, 1)),
        (pb.TELLING_LOOKUPS, (), (0, 0)),
    ):
        await tell(country.east, tells, *tenants)
        said = (await center.ListDomains(pb.ListDomainsRequest(tree=True))).domain
        assert (said.vms, said.servers) == counts
        if tells != pb.TELLING_EVERYTHING:
            assert not any(d.vms or d.servers for d in said.domains)


async def test_what_cannot_be_meant_is_refused(country: Country) -> None:
    for name, tells, tenants, reason in (
        ("nobody", pb.TELLING_LOOKUPS, (), Reason.UNKNOWN_DOMAIN),
        ("center", pb.TELLING_TENANTS, (), Reason.INVALID_FIELD),
        ("center", pb.TELLING_LOOKUPS, ("blue",), Reason.INVALID_FIELD),
        ("center", pb.TELLING_UNSPECIFIED, ("blue",), Reason.INVALID_FIELD),
        ("center", pb.TELLING_TENANTS, ("no name!",), Reason.INVALID_FIELD),
    ):
        request = pb.TellRequest(domain=name, tells=tells, tenants=tenants)
        with country.east.nothing_changes():
            refusal = await refusal_of(country.east.operator.federation.Tell(request))
        assert refusal.reason is reason


async def test_nobody_says_it_from_another_domain(country: Country) -> None:
    """A parent's admins are admins here, but not of what their own vCenter may learn."""
    await tell_the_center(country)
    stub = federation_pb2_grpc.FederationStub(country.center.channel)
    said = (*rpc.identity("operator/alice"), *rpc.addressed("east"))
    request = pb.TellRequest(domain="center", tells=pb.TELLING_EVERYTHING)
    refusal = await refusal_of(stub.Tell(request, metadata=said, timeout=TIMEOUT_S))
    assert refusal.reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    "wrong",
    [{"tells": "tenants"}, {"tenants": ("blue",)}, {"tells": "tenants", "tenants": ("no name!",)}],
)
def test_tenants_are_named_where_they_are_meant(wrong: dict[str, Any]) -> None:
    said = {"name": "east", "address": "unix:/east", "relation": "peer"}
    with pytest.raises(ValidationError):
        DomainSettings.model_validate(said | wrong)
