"""6 and A20: what is asked at one vCenter is carried out by the one that owns the VM or vServer,
for the caller who asked and with no more than that caller may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from common import rpc
from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, enrolment_pb2, enrolment_pb2_grpc, inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import TIMEOUT_S, refusal_of
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
from tests.support.lab import Lab
from tests.support.moving import PHASES, Move
from tests.support.nouns import by_id, deny_ssh, vm, vm_id


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with running_country() as country:
        yield country


class Asked(Move):
    """A move in the east that is asked for, followed and looked at somewhere else."""

    @classmethod
    async def begun(cls, east: Lab, at: Lab) -> Asked:
        source, destination = await east.agent("host-1"), await east.agent("host-2")
        await source.register(vm(1))
        await soon(lambda: found_at(at, "east"))
        move = cls(at, source, destination)
        await move.begin()
        return move


def get_vm(number: int = 1) -> directory_pb2.GetVmRequest:
    return directory_pb2.GetVmRequest(key=by_id(number))


def addressed(lab: Lab, name: str, method: str, request: Any, *more: tuple[str, str]) -> Any:
    """`Service/Method` of the lab's vCenter, called by `name` with more metadata."""
    service, _, call = method.partition("/")
    stub = getattr(lab.client(name), service)._stub
    metadata = (*rpc.identity(name), *more)
    return getattr(stub, call)(request, metadata=metadata, timeout=TIMEOUT_S)


@pytest.mark.parametrize("place", ["center", "west", "top"])
async def test_a_move_asked_for_elsewhere_is_carried_out_by_the_owner(
    country: Country, place: str
) -> None:
    """From the center; by way of it from the side and from above. The receipt comes back."""
    at: Lab = country.center
    if place == "west":
        at = country.west
        await country.center.reconfigure(domains=_believing(country, "west", "admin"))
    elif place == "top":
        at = await country.lab("top", neighbour(country.center, "center", "child"))
        above = neighbour(at, "top", "parent")
        await country.center.reconfigure(domains=(*_believing(country, "", ""), above))
    move = await Asked.begun(country.east, at)
    done = await move.finish(PHASES[0])
    assert done.phase == operations.PHASE_SUCCEEDED and done.receipt.bytes == 1_000_000
    assert [p.phase for p in done.phases] == list(PHASES)
    assert await move.owner() == ("host-2", 2)
    via = "center" if place == "center" else f"{place}, center"
    assert done.requested_by == f"operator/alice via {via}"
    assert country.east.center.ledger.table.operation(move.id) is not None
    assert at.center.ledger.table.operation(move.id) is None


def _believing(country: Country, name: str, vouches: str) -> tuple[dict[str, str], ...]:
    children = (neighbour(country.east, "east", "child"), neighbour(country.west, "west", "child"))
    return tuple(c | {"vouches": vouches} if c["name"] == name else c for c in children)


async def test_it_is_followed_and_cancelled_from_above_also_after_a_restart(
    country: Country,
) -> None:
    move = await Asked.begun(country.east, country.center)
    await move.until(operations.PHASE_PREPARING)
    await country.center.restart()
    await soon(lambda: found_at(country.center, "east"))
    assert (await move.cancel()).cancel_requested
    await move.stay()
    assert (await move.done()).phase == operations.PHASE_CANCELLED


async def test_whatever_names_a_vm_or_a_vserver_goes_to_its_owner(country: Country) -> None:
    await registered(country)
    operator = country.center.operator
    assert (await operator.directory.GetVm(get_vm())).record.location.server_id == "e1"
    listed = await operator.directory.ListVms(directory_pb2.ListVmsRequest(server_id="e1"))
    assert [r.vm.vm_id for r in listed.records] == [vm_id(1)]
    profile = deny_ssh()
    request = inventory_pb2.SetVmProfileRequest(vm_id=vm_id(1), profile=profile)
    await operator.inventory.SetVmProfile(request)
    assert (await country.east.record(vm_id(1))).vm.profile == profile
    cordon = inventory_pb2.CordonServerRequest(server_id="e1", cordoned=True)
    assert (await operator.inventory.CordonServer(cordon)).cordoned
    assert (await country.east.server("e1")).server.cordoned
    with country.center.nothing_changes():
        drain = signaling.RelocateRequest(server_id="e1")
        refused = await refusal_of(operator.signaling.Relocate(drain))
    assert refused.reason is Reason.NO_DESTINATION
    assert refused.evidence["domain"] == "east", "it says who refused"


async def test_a_watch_of_one_vm_is_its_owners(country: Country) -> None:
    await registered(country)
    request = directory_pb2.WatchRequest(vm_id=vm_id(1))
    async for event in country.center.operator.directory.Watch(request):
        if event.WhichOneof("change") == "vm":
            assert event.vm.location.server_id == "e1"
            break


async def test_a_domain_can_be_named(country: Country) -> None:
    """Groups and tenants are known by no other domain: who means another one says so. A domain
    below the next one is found as well."""
    top = await country.lab("top", neighbour(country.center, "center", "child"))
    await country.center.reconfigure(
        domains=(*_believing(country, "", ""), neighbour(top, "top", "parent"))
    )

    async def known() -> bool:
        center = await domain(top, "center", tree=True)
        return "east" in {below.name for below in center.domains}

    await soon(known)
    for lab, name, group in (
        (country.center, "operator/alice", "web"),
        (top, "operator/anna/admin", "db"),
    ):
        put = inventory_pb2.PutGroupRequest(group=types.Group(tenant="blue", name=group))
        await addressed(lab, name, "inventory/PutGroup", put, *rpc.addressed("east"))
    get = inventory_pb2.GetGroupRequest(tenant="blue", name="web")
    assert (await country.east.operator.inventory.GetGroup(get)).name == "web"
    for lab in (top, country.center):
        assert (await refusal_of(lab.operator.inventory.GetGroup(get))).reason is (
            Reason.UNKNOWN_GROUP
        )
    await country.east.center.ledger.audit.flush()  # it is written behind the calls
    entries = await country.east.operator.directory.ListAudit(directory_pb2.ListAuditRequest())
    who = {entry.who for entry in entries.entries}
    assert {"operator/alice via center", "operator/anna via top, center"} <= who
    mars = rpc.addressed("mars")
    nowhere = addressed(top, "operator/alice", "inventory/GetGroup", get, *mars)
    assert (await refusal_of(nowhere)).reason is Reason.UNKNOWN_DOMAIN


async def test_lookups_may_be_addressed_too(country: Country) -> None:
    await registered(country)
    request = signaling.LookupRequest(keys=[by_id(1)])
    answer = await addressed(
        country.center, "operator/alice", "directory/Lookup", request, *rpc.addressed("east")
    )
    assert answer.results[0].certainty == signaling.CERTAINTY_AUTHORITATIVE


# ---- for whom ----


async def test_the_owner_asks_its_own_rules_about_the_original_caller(country: Country) -> None:
    await registered(country)
    red, blue = (country.center.client(f"tenant/{t}") for t in ("red", "blue"))
    assert (await blue.directory.GetVm(get_vm())).record.vm.vm_id == vm_id(1)
    assert (await refusal_of(red.directory.GetVm(get_vm()))).reason is Reason.UNKNOWN_VM
    named = addressed(
        country.center, "tenant/red", "directory/GetVm", get_vm(), *rpc.addressed("east")
    )
    assert (await refusal_of(named)).reason is Reason.UNKNOWN_VM
    viewer = country.center.client("operator/vic/view")
    move = signaling.RelocateRequest(vm_id=vm_id(1))
    assert (await refusal_of(viewer.signaling.Relocate(move))).reason is Reason.FORBIDDEN


LEVELS = ["nobody", "tenant", "view", "operate", "admin"]


@pytest.mark.parametrize("vouches", LEVELS)
async def test_a_neighbour_is_believed_as_far_as_it_is_configured(
    country: Country, vouches: str
) -> None:
    parent = neighbour(country.center, "center", "parent") | {"vouches": vouches}
    await country.east.reconfigure(domains=(parent,))
    await registered(country)
    put = inventory_pb2.PutGroupRequest(group=types.Group(tenant="blue", name="web"))
    tries = {
        "tenant": ("tenant/blue", "directory/GetVm", get_vm()),
        "view": ("operator/ada", "directory/GetVm", get_vm()),
        "operate": ("operator/ada", "inventory/CordonServer", _cordon("e1")),
        "admin": ("operator/ada", "inventory/PutGroup", put),
    }
    for needs, (name, method, request) in tries.items():
        call = addressed(country.center, name, method, request, *rpc.addressed("east"))
        if LEVELS.index(vouches) >= LEVELS.index(needs):
            await call
        else:
            assert (await refusal_of(call)).reason is Reason.FORBIDDEN, needs


def _cordon(server_id: str) -> inventory_pb2.CordonServerRequest:
    return inventory_pb2.CordonServerRequest(server_id=server_id, cordoned=True)


BY_CENTER = ("vsignal-asked", "center")


@pytest.mark.parametrize(
    ("relay", "metadata", "reason"),
    [
        ("domain/mars", [("vsignal-caller", "operator/eve/admin"), BY_CENTER], Reason.FORBIDDEN),
        ("domain/center", [("vsignal-caller", "vserver/e1"), BY_CENTER], Reason.FORBIDDEN),
        ("domain/center", [("vsignal-caller", "domain/east"), BY_CENTER], Reason.FORBIDDEN),
        ("vcenter/center", [("vsignal-caller", "operator/a/view"), BY_CENTER], Reason.FORBIDDEN),
        ("domain/center", [("vsignal-caller", "operator/eve"), BY_CENTER], Reason.UNIDENTIFIED),
        ("domain/center", [("vsignal-caller", "nobody"), BY_CENTER], Reason.UNIDENTIFIED),
        ("domain/center", [("vsignal-caller", "operator/eve/view")], Reason.INVALID_FIELD),
        (
            "domain/center",
            [("vsignal-caller", "operator/eve/view"), ("vsignal-asked", "west")],
            Reason.INVALID_FIELD,
        ),
        (
            "domain/center",
            [("vsignal-caller", "operator/eve/view"), ("vsignal-asked", "east,center")],
            Reason.DOMAIN_LOOP,
        ),
        (
            "domain/center",
            [
                ("vsignal-caller", "operator/eve/view"),
                ("vsignal-asked", ",".join([*(f"d{n}" for n in range(16)), "center"])),
            ],
            Reason.INVALID_FIELD,
        ),
    ],
)
async def test_a_word_that_is_not_believed(
    country: Country, relay: str, metadata: list[tuple[str, str]], reason: Reason
) -> None:
    await registered(country)
    call = addressed(country.east, relay, "directory/GetVm", get_vm(), *metadata)
    assert (await refusal_of(call)).reason is reason


@pytest.mark.parametrize("who", ["operator/eve", "tenant/red", "vserver/e1"])
async def test_nobody_but_a_neighbour_speaks_for_others(country: Country, who: str) -> None:
    """The metadata is not read; the caller is who it is."""
    await registered(country)
    said = (("vsignal-caller", "tenant/blue"), BY_CENTER)
    call = addressed(country.east, who, "directory/GetVm", get_vm(), *said)
    if who == "operator/eve":
        await call
    else:
        assert (await refusal_of(call)).reason in (Reason.UNKNOWN_VM, Reason.FORBIDDEN)


async def test_no_certificate_is_given_on_the_word_of_another_domain(country: Country) -> None:
    await registered(country)
    stub = enrolment_pb2_grpc.EnrolmentStub(country.center.channel)
    request = enrolment_pb2.ListCertificatesRequest()
    metadata = (*rpc.identity("operator/alice"), *rpc.addressed("east"))
    call = stub.ListCertificates(request, metadata=metadata, timeout=TIMEOUT_S)
    assert (await refusal_of(call)).reason is Reason.FORBIDDEN


# ---- what does not work ----


async def test_a_domain_that_cannot_be_reached_is_said_to_be(country: Country) -> None:
    await registered(country)
    await country.east.stop()
    operator = country.center.operator
    refused = await refusal_of(operator.directory.GetVm(get_vm()))
    assert refused.reason is Reason.DOMAIN_UNREACHABLE and "east" in refused.message
    assert (await find(country.center, by_id(1))).certainty in (
        signaling.CERTAINTY_STALE,
        signaling.CERTAINTY_CACHED,
    )
    await country.east.start()


async def test_what_nobody_has_is_refused_where_it_was_asked_for(country: Country) -> None:
    for lab in (country.center, country.west):
        refused = await refusal_of(lab.operator.directory.GetVm(get_vm(9)))
        assert refused.reason is Reason.UNKNOWN_VM and "domain" not in refused.evidence
    unknown = operations.GetOperationRequest(operation_id=vm_id(3))
    assert (await refusal_of(country.center.operator.operations.Get(unknown))).reason is (
        Reason.UNKNOWN_OPERATION
    )


async def test_streams_from_the_caller_are_not_passed_on(country: Country) -> None:
    stub: Any = country.center.operator.signaling._stub
    metadata = (*rpc.identity("operator/alice"), *rpc.addressed("east"))
    call = stub.SyncGroup(iter(()), metadata=metadata, timeout=TIMEOUT_S)
    assert (await refusal_of(call)).reason is Reason.NOT_PASSED_ON
