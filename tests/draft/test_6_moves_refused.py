"""6 and 5.5: what stands against a move to another domain, and who may order one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import federation_pb2_grpc, inventory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import TIMEOUT_S, refusal_of
from tests.support.country import Country
from tests.support.crossing import Crossing, moving_country, reconfigured
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM
from tests.support.nouns import rate, vm, vm_id

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with moving_country() as country:
        yield country


async def reasons(move: Crossing, to: str = "west/w1") -> set[str]:
    return {o.reason for o in (await move.plan(to)).objections}


async def test_what_is_missing_there_is_named_and_declared_where_it_may_be(
    country: Country,
) -> None:
    profile = types.Profile(ingress_rate=rate(50))
    await country.east.group("web", profile)
    source, destination = await country.east.agent("e1"), await country.west.agent("w1")
    await source.register(vm(1, group="web"))
    move = Crossing(country.east, country.west, source, destination)
    put = country.east.client("operator/olga/operate")
    request = signaling.RelocateRequest(vm_id=VM, destination="west/w1", plan_only=True)
    refused = await put.signaling.Relocate(request)
    assert [o.reason for o in refused.objections] == [Reason.UNKNOWN_GROUP.name]
    planned = await move.plan()
    assert [list(m.creates) for m in planned.moves] == [["group blue/web"]]
    await move.begin()
    assert (await move.to_the_end(PREPARING)).phase == SUCCEEDED
    get = inventory_pb2.GetGroupRequest(tenant="blue", name="web")
    assert (await country.west.operator.inventory.GetGroup(get)).profile == profile


async def test_a_group_with_another_profile_there_is_an_objection(country: Country) -> None:
    await country.east.group("web", types.Profile(ingress_rate=rate(50)))
    await country.west.group("web", types.Profile(ingress_rate=rate(60)))
    source, destination = await country.east.agent("e1"), await country.west.agent("w1")
    await source.register(vm(1, group="web"))
    move = Crossing(country.east, country.west, source, destination)
    assert await reasons(move) == {Reason.POLICY_DIFFERS.name}
    assert (await refusal_of(move.begin())).reason is Reason.POLICY_DIFFERS


async def test_a_vni_of_another_owner_there_is_refused_with_the_reason(country: Country) -> None:
    put = country.east.operator.inventory
    network = types.VirtualNetwork(network_id="green-net", tenant="green", vnis=[200])
    await put.DeleteNetwork(inventory_pb2.DeleteNetworkRequest(network_id="red-net"))
    await put.PutTenant(inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id="green")))
    await put.PutNetwork(inventory_pb2.PutNetworkRequest(network=network))
    source, destination = await country.east.agent("e1"), await country.west.agent("w1")
    await source.register(vm(1, "green"))
    move = Crossing(country.east, country.west, source, destination)
    planned = await move.plan()
    assert Reason.VNI_TAKEN.name in {o.reason for o in planned.objections}
    (taken,) = [o for o in planned.objections if o.reason == Reason.VNI_TAKEN.name]
    assert taken.message.startswith("VNI 200 is 'red-net' of another owner")


async def test_an_address_that_is_held_there_is_an_objection(country: Country) -> None:
    move = await Crossing.between(country)
    twin = vm(1)
    twin.vm_id = vm_id(9)
    await move.destination.register(twin)
    found = await reasons(move)
    assert Reason.CLAIM_HELD.name in found
    assert found <= {Reason.CLAIM_HELD.name, Reason.IN_TWO_DOMAINS.name}, "frozen, once it is seen"


async def test_every_reason_of_both_sides_is_said_at_once(country: Country) -> None:
    move = await Crossing.between(country, capacity=types.Resources(vcpus=1, memory_mib=100))
    assert await reasons(move) == {Reason.NO_CAPACITY.name}
    assert await reasons(move, "west/w9") == {Reason.UNKNOWN_SERVER.name}
    assert Reason.NO_DESTINATION.name in await reasons(move, "west/")
    assert (await refusal_of(move.plan("mars/m1"))).reason is Reason.UNKNOWN_DOMAIN


async def test_its_place_is_promised_from_the_turn_on(country: Country) -> None:
    move = await Crossing.between(country, capacity=types.Resources(vcpus=8, memory_mib=700))
    await move.begin()
    await move.both_in(PREPARING)
    server = (await country.west.server("w1")).server
    assert server.committed.memory_mib == 512


# ---- who may ----


@pytest.mark.parametrize("vouches", ["nobody", "view"])
async def test_a_neighbour_that_is_not_believed_sends_nothing(
    country: Country, vouches: str
) -> None:
    await reconfigured(country, vouches)
    move = await Crossing.between(country)
    assert (await refusal_of(move.begin())).reason is Reason.FORBIDDEN


async def test_a_tenant_moves_its_own(country: Country) -> None:
    move = await Crossing.between(country)
    request = signaling.RelocateRequest(vm_id=VM, destination="west/w1")
    red = country.east.client("tenant/red")
    assert (await refusal_of(red.signaling.Relocate(request))).reason is Reason.UNKNOWN_VM
    blue = country.east.client("tenant/blue")
    move.id = (await blue.signaling.Relocate(request)).operation.operation_id
    assert (await move.to_the_end(PREPARING)).phase == SUCCEEDED
    get = operations.GetOperationRequest(operation_id=move.id)
    assert (await blue.operations.Get(get)).done


@pytest.mark.parametrize("method", ["Carry", "PlanArrivals"])
@pytest.mark.parametrize("where", ["west", "center"])
async def test_only_vcenters_speak_of_moves_to_each_other(
    country: Country, method: str, where: str
) -> None:
    """Not even an administrator, directly or by way of another domain."""
    lab: Lab = getattr(country, where)
    stub = federation_pb2_grpc.FederationStub(lab.channel)
    request = pb.CarryRequest() if method == "Carry" else pb.PlanArrivalsRequest()
    metadata = (("vsignal-identity", "operator/eve"), ("vsignal-domain", "west"))
    call = getattr(stub, method)(request, metadata=metadata, timeout=TIMEOUT_S)
    assert (await refusal_of(call)).reason is Reason.FORBIDDEN


async def test_a_domain_speaks_for_its_own_vms_only(country: Country) -> None:
    """What a neighbour says of a move from a third domain is refused, whoever asked for it."""
    stub = federation_pb2_grpc.FederationStub(country.west.channel)
    move = operations.Operation(
        operation_id=vm_id(7),
        vm_id=VM,
        kind="relocate",
        source="east/e1",
        destination="west/w1",
        phase=PREPARING,
    )
    metadata = (
        ("vsignal-identity", "domain/center"),
        ("vsignal-caller", "operator/eve/admin"),
        ("vsignal-asked", "center"),
    )
    call = stub.Carry(pb.CarryRequest(move=move), metadata=metadata, timeout=TIMEOUT_S)
    assert (await refusal_of(call)).reason is Reason.INVALID_FIELD
