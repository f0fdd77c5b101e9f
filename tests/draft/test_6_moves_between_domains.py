"""6 and 5.5: a VM moves from one domain to another. One move id, one set of phases on both sides,
and authority that changes hands with the epoch, once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2, federation_pb2_grpc, inventory_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, HELD, PREPARE, RUNNING, START
from tests.support.calls import TIMEOUT_S, refusal_of
from tests.support.country import Country, domain, find, neighbour, soon
from tests.support.crossing import Crossing, found_everywhere, moving_country, reconfigured, state
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM
from tests.support.nouns import by_id, deny_ssh, rate, vm, vm_id

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


# ---- whatever stops, at any phase ----


@pytest.mark.parametrize("who", ["east", "west", "center"])
async def test_a_vcenter_that_restarts_at_every_phase_goes_on(country: Country, who: str) -> None:
    lab: Lab = getattr(country, who)
    move = await Crossing.between(country)
    await move.begin()
    for phase, step in zip(PHASES, (move.prepare, move.copy, move.start, move.clean), strict=False):
        await move.both_in(phase)
        await lab.restart()
        await step()
    assert (await move.done()).phase == SUCCEEDED
    await move.ended()
    await found_everywhere(country, IN_THE_WEST)
    assert not await country.center.alerts()


async def test_cut_off_while_it_is_prepared_it_can_be_called_off(country: Country) -> None:
    """The other side hears of it when it is back, and forgets the VM."""
    move = await Crossing.between(country)
    await move.begin()
    await move.both_in(PREPARING)
    await country.center.stop()
    await move.cancel()
    await move.stay()
    assert (await move.done()).phase == operations.PHASE_CANCELLED
    assert (await move.mirror()).phase == PREPARING, "it cannot know"
    await country.center.start()
    assert (await move.ended()).phase == operations.PHASE_CANCELLED
    await move.destination.until_gone(VM)
    await found_everywhere(country, IN_THE_EAST)


async def test_cut_off_at_the_switch_nobody_starts_it_until_they_hear(country: Country) -> None:
    """The source's domain has given it up and the destination's has not heard: unknown is not
    failed, and neither host is told to run it."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.both_in(COPYING)
    await country.center.stop()
    await move.copy()
    await move.until(SWITCHING)
    assert (await move.mirror()).phase == COPYING
    assert move.destination.vms[VM].move.step == PREPARE
    assert VM not in move.source.vms
    assert (await refusal_of(move.cancel())).reason is Reason.TOO_LATE_TO_CANCEL
    gone = await find(country.east, by_id(1))
    assert (gone.authority, gone.location.server_id) == ("west", "w1")
    assert gone.certainty == signaling.CERTAINTY_STALE
    await country.center.start()
    await move.start()
    await move.clean()
    assert (await move.done()).phase == SUCCEEDED
    await found_everywhere(country, IN_THE_WEST)


async def test_cut_off_after_the_switch_it_runs_and_the_other_side_hears_later(
    country: Country,
) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.copy()
    await move.both_in(SWITCHING)
    await country.center.stop()
    await move.start()

    async def runs() -> bool:
        return (await move.mirror()).phase == SETTLING

    await soon(runs)
    assert state(country.west) == types.VM_STATE_RUNNING and state(country.east) is None
    assert (await move.get()).phase == SWITCHING
    await country.center.start()
    await move.clean()
    assert (await move.done()).phase == SUCCEEDED
    await move.ended()


async def test_cut_off_at_the_end_the_other_side_is_told_when_it_is_back(
    country: Country,
) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.copy()
    await move.start()
    await move.both_in(SETTLING)
    await country.west.stop()
    await move.clean()
    done = await move.done()
    assert done.phase == SUCCEEDED and not done.told
    kept = await find(country.east, by_id(1))
    assert (kept.authority, kept.certainty) == ("west", signaling.CERTAINTY_STALE)
    await country.east.restart()
    await country.west.start()
    assert (await move.ended()).phase == SUCCEEDED


# ---- what goes wrong ----


async def test_a_destination_that_cannot_prepare_ends_it(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    failure = operations.Failure(reason=Reason.NETWORK_FAILED.name, message="no bridge")
    await move.destination.outcome(wanted, ABSENT, ok=False, failure=failure)
    await move.stay()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "NETWORK_FAILED")
    assert (await move.ended()).failure.message == "no bridge"
    await found_everywhere(country, IN_THE_EAST)


async def test_a_copy_that_fails_goes_back_on_both_sides(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(wanted, RUNNING, ok=False)
    await move.go_back()
    assert (await move.done()).phase == operations.PHASE_FAILED
    await move.ended()
    await found_everywhere(country, IN_THE_EAST)


async def test_cancelled_where_it_was_to_go(country: Country) -> None:
    """The destination's vCenter passes it on to the one that decides."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.both_in(COPYING)
    request = operations.CancelOperationRequest(operation_id=move.id)
    assert (await country.west.operator.operations.Cancel(request)).cancel_requested
    await move.go_back()
    assert (await move.done()).phase == operations.PHASE_CANCELLED
    assert (await move.ended()).phase == operations.PHASE_CANCELLED


async def test_a_silent_destination_ends_it_before_the_copy(country: Country) -> None:
    move = await Crossing.between(country)
    await country.west.reconfigure(lease_seconds=20.0)  # a second
    async with move.destination.beating():
        await move.begin()
        await move.both_in(PREPARING)
    await move.destination.detach()
    await move.stay()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "SESSION_LOST")
    await move.ended()


async def switched(country: Country, truth: int) -> Crossing:
    """The source has said this of the VM, and the destination is to start it."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(wanted, truth, policy_hash=wanted.profile_hash)
    await move.destination.until_ordered(VM, START)
    return move


async def test_what_the_source_still_holds_goes_back_to_it(country: Country) -> None:
    """Given up there before it is taken here: another change of owner, another epoch."""
    move = await switched(country, HELD)
    await move.destination.outcome(move.destination.vms[VM], ABSENT, ok=False)
    wanted = await move.source.until_ordered(VM, START)
    assert wanted.move.epoch == 3
    assert (await move.mirror()).phase == operations.PHASE_RETURNING
    assert state(country.west) is None
    cleaned = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(cleaned, ABSENT)
    await move.source.outcome(wanted, RUNNING)
    assert (await move.done()).phase == operations.PHASE_FAILED
    assert (await move.ended()).phase == operations.PHASE_FAILED
    await found_everywhere(country, ("east", "e1", 3))


async def test_what_neither_has_is_lost_on_both_sides_and_a_person_settles_it(
    country: Country,
) -> None:
    move = await switched(country, ABSENT)
    await move.destination.outcome(move.destination.vms[VM], ABSENT, ok=False)
    assert (await move.done()).phase == operations.PHASE_LOST_NEEDS_FENCE
    assert (await move.mirror()).phase == operations.PHASE_LOST_NEEDS_FENCE
    assert state(country.west) == types.VM_STATE_LOST_NEEDS_FENCE
    for lab in (country.east, country.west):
        assert await lab.alerts(Reason.NEEDS_FENCE.name)
    await move.ended()
    settle = operations.SettleRequest(vm_id=VM, server_id="w1")
    settled = await country.center.operator.operations.Settle(settle)
    assert (settled.server_id, settled.epoch) == ("w1", 3)


# ---- what stands against it ----


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
    assert await reasons(move) == {Reason.CLAIM_HELD.name}


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
