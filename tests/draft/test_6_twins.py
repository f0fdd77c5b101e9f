"""6: one identity in two domains is frozen, as configured: what runs goes on, orders about it are
refused until one of the two is gone, or an operator says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from common import rpc
from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, inventory_pb2_grpc
from common.pb.vsignal.v1 import federation_pb2 as federation
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import Agent
from tests.support.calls import refusal_of
from tests.support.country import Country, domain, neighbour, running_country, soon
from tests.support.lab import Lab
from tests.support.nouns import by_id, ip, vm, vm_id

VM, TWIN = vm_id(1), vm_id(9)
TO_E2 = signaling.RelocateRequest(vm_id=VM, destination="e2")


class Peers:
    """East and west, which follow each other, and let each other's word freeze."""

    def __init__(self, east: Lab, west: Lab) -> None:
        self.east, self.west = east, west

    async def know_each_other(self, **settings: Any) -> None:
        for lab, other, name in ((self.east, self.west, "west"), (self.west, self.east, "east")):
            known: dict[str, Any] = neighbour(other, name, "peer") | settings
            await lab.reconfigure(domains=(known,))

    async def both_have(self, twin: types.Vm) -> tuple[Agent, Agent]:
        """VM 1 in the east, and its twin in the west."""
        e1 = await self.east.agent("e1")
        await self.east.agent("e2")
        w1 = await self.west.agent("w1")
        await e1.register(vm(1))
        await w1.register(twin)
        return e1, w1


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async with AsyncExitStack() as stack:
        country = Country(stack)
        peers = Peers(await country.lab("east"), await country.lab("west"))
        await peers.know_each_other(twins="freeze")
        yield peers


async def twins(lab: Lab, number: int = 1) -> list[types.Twin]:
    request = directory_pb2.GetVmRequest(key=by_id(number))
    return list((await lab.operator.directory.GetVm(request)).twins)


async def frozen(lab: Lab, number: int = 1) -> bool:
    return any(not twin.HasField("thawed_at") for twin in await twins(lab, number))


async def free(lab: Lab) -> bool:
    return not await twins(lab)


async def refused(lab: Lab, request: signaling.RelocateRequest = TO_E2) -> Refusal:
    return await refusal_of(lab.operator.signaling.Relocate(request))


async def test_orders_about_a_vm_that_two_domains_hold_are_refused_until_one_gives_it_up(
    peers: Peers,
) -> None:
    e1, w1 = await peers.both_have(vm(1))
    for lab in (peers.east, peers.west):
        await soon(lambda lab=lab: frozen(lab))  # type: ignore[misc]
    (twin,) = await twins(peers.east)
    assert [(s.domain, s.server_id, s.epoch) for s in twin.sides] == [
        ("east", "e1", 1),
        ("west", "w1", 1),
    ]
    refusal = await refused(peers.east)
    assert refusal.reason is Reason.IN_TWO_DOMAINS
    for word in ("west", "w1", "epoch 1"):
        assert word in refusal.message
    everything = signaling.RelocateRequest(server_id="e1")
    assert (await refused(peers.east, everything)).reason is Reason.IN_TWO_DOMAINS
    copy = signaling.ReplicateRequest(vm_id=VM, near="e2", standby=True)
    answer = await refusal_of(peers.east.operator.signaling.Replicate(copy))
    assert answer.reason is Reason.IN_TWO_DOMAINS
    (wanted,) = e1.vms.values()
    assert wanted.ports == 2, "what runs goes on"

    changed = vm(1)
    changed.name = "renamed"
    await e1.register(changed)  # what its host says is believed
    assert (await peers.east.record(VM)).vm.name == "renamed"
    await w1.deregister(VM, 1)
    await soon(lambda: free(peers.east))
    begun = await peers.east.operator.signaling.Relocate(TO_E2)
    assert begun.operation.phase == operations.PHASE_PREPARING


async def test_an_address_freezes_both_vms_until_one_has_another(peers: Peers) -> None:
    twin = vm(9)
    twin.interfaces[0].ips[:] = [ip(1)]
    await peers.both_have(twin)
    await soon(lambda: frozen(peers.east))
    await soon(lambda: frozen(peers.west, 9))
    refusal = await refused(peers.east)
    assert refusal.reason is Reason.IN_TWO_DOMAINS
    assert f"100/{ip(1)}" in refusal.message and TWIN in refusal.message
    other = inventory_pb2.AssignVmRequest(vm_id=TWIN)
    other.interfaces.add(mac=twin.interfaces[0].mac, ips=[ip(9)])
    await peers.west.operator.inventory.AssignVm(other)  # that is the way out
    await soon(lambda: free(peers.east))


async def test_it_is_still_frozen_after_a_restart_while_the_other_cannot_be_reached(
    peers: Peers,
) -> None:
    _, w1 = await peers.both_have(vm(1))
    await soon(lambda: frozen(peers.east))
    await peers.west.stop()
    await peers.east.restart()

    async def silent() -> bool:
        return (await domain(peers.east, "west")).state == federation.DOMAIN_STATE_STALE

    await soon(silent)
    assert (await refused(peers.east)).reason is Reason.IN_TWO_DOMAINS
    await peers.west.start()
    await w1.attach()
    await w1.deregister(VM, 1)
    await soon(lambda: free(peers.east))


async def test_an_operator_thaws_it_and_that_is_in_the_audit_log(peers: Peers) -> None:
    _, w1 = await peers.both_have(vm(1))
    await soon(lambda: frozen(peers.east))
    thaw = inventory_pb2.ThawVmRequest(key=by_id(1))
    east = peers.east.operator
    await east.inventory.ThawVm(thaw)
    changed = vm(1)
    changed.name = "still-there"
    await w1.register(changed)

    async def heard() -> bool:
        _, table = next(iter(peers.east.center.federation.copies()))
        record = table.vm(VM)
        return record is not None and record.vm.name == "still-there"

    await soon(heard)
    await east.signaling.Relocate(TO_E2)
    (twin,) = await twins(peers.east)
    assert twin.HasField("thawed_at"), "it is still shown"

    async def audited() -> bool:
        log = await east.directory.ListAudit(directory_pb2.ListAuditRequest(subject=VM))
        said = [(e.what, e.who, e.outcome) for e in log.entries]
        return ("Thaw", "operator/alice", "done") in said

    await soon(audited)
    assert (await refusal_of(east.inventory.ThawVm(thaw))).reason is Reason.NOT_FROZEN


async def test_a_peers_word_alarms_only_unless_it_is_configured_to_freeze(peers: Peers) -> None:
    await peers.know_each_other()
    await peers.both_have(vm(1))

    async def alarmed() -> bool:
        return bool(await peers.east.alerts(Reason.RUNNING_IN_TWO_PLACES.name))

    await soon(alarmed)
    await peers.east.operator.signaling.Relocate(TO_E2)
    assert not await twins(peers.east)


async def test_a_tenant_hears_nothing_of_the_other_domain(peers: Peers) -> None:
    await peers.both_have(vm(1, "red"))
    await soon(lambda: frozen(peers.east))
    tenant = peers.east.client("tenant/blue")
    refusal = await refusal_of(tenant.signaling.Relocate(TO_E2))
    assert (refusal.reason, refusal.evidence) == (Reason.IN_TWO_DOMAINS, {})
    assert "w1" not in refusal.message and "west" not in refusal.message
    answer = await tenant.directory.GetVm(directory_pb2.GetVmRequest(key=by_id(1)))
    assert not answer.twins


async def test_a_center_tells_its_children_what_they_cannot_see() -> None:
    """The same, where east and west know of each other by the center above them only."""
    async with running_country() as country:
        below = Peers(country.east, country.west)
        _, w1 = await below.both_have(vm(1))
        for lab in (below.east, below.west):
            await soon(lambda lab=lab: frozen(lab))  # type: ignore[misc]
        refusal = await refused(below.east)
        assert refusal.reason is Reason.IN_TWO_DOMAINS and "w1" in refusal.message
        (twin,) = await twins(below.east)
        assert twin.told_by == "center"
        await country.center.stop()
        await below.east.restart()
        assert await frozen(below.east), "what it said last holds"
        await country.center.start()
        await w1.deregister(VM, 1)
        await soon(lambda: free(below.east))


async def test_a_thaw_at_the_center_is_one_for_all() -> None:
    async with running_country() as country:
        await Peers(country.east, country.west).both_have(vm(1))
        await soon(lambda: frozen(country.east))
        here = [(rpc.DOMAIN_KEY, "center")]
        channel = country.center.channel
        stub = inventory_pb2_grpc.InventoryStub(channel)
        thaw = inventory_pb2.ThawVmRequest(key=by_id(1))
        await stub.ThawVm(thaw, metadata=(*rpc.identity("operator/alice"), *here))
        await soon(lambda: free(country.east))
        await country.east.operator.signaling.Relocate(TO_E2)


async def test_a_parents_word_may_be_configured_to_freeze_nothing() -> None:
    async with running_country() as country:
        below = Peers(country.east, country.west)
        await below.both_have(vm(1))
        await soon(lambda: frozen(country.east))
        parent: dict[str, Any] = neighbour(country.center, "center", "parent")
        await country.east.reconfigure(domains=(parent | {"twins": "alarm"},))
        await soon(lambda: free(country.east))
        assert await frozen(country.west)
