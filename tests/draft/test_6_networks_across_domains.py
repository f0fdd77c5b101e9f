"""6: a tenant's network spans domains: hosts on both sides know where its members are, also of one
that moves from one to the other; another owner's network with the same VNI is another network."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import Agent
from tests.support.country import Country, neighbour
from tests.support.crossing import Crossing, moving_country
from tests.support.nouns import mac, vm

EAST_END, WEST_END, FAR_END = "198.51.100.1", "198.51.100.201", "198.51.100.202"


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with moving_country() as country:
        yield country


def forwards(agent: Agent, vni: int = 100) -> dict[str, str]:
    network = agent.networks.get(vni)
    return {f.mac: f.vtep_address for f in network.forwards} if network is not None else {}


async def until_at(agent: Agent, number: int, end: str) -> None:
    """The host has been told behind which tunnel end the VM is."""
    await agent.until(lambda: forwards(agent).get(mac(number), "") == end)


async def test_the_members_of_both_domains_reach_each_other(country: Country) -> None:
    east = await country.east.agent("e1")
    west = await country.west.agent("w1", vtep_address=WEST_END)
    await east.register(vm(1))
    await west.register(vm(2))
    await until_at(east, 2, WEST_END)
    await until_at(west, 1, EAST_END)
    assert WEST_END in east.networks[100].vtep_addresses
    assert EAST_END in west.networks[100].vtep_addresses


async def test_who_leaves_is_forgotten(country: Country) -> None:
    east = await country.east.agent("e1")
    west = await country.west.agent("w1", vtep_address=WEST_END)
    await east.register(vm(1))
    await west.register(vm(2))
    await until_at(east, 2, WEST_END)
    await west.deregister(vm(2).vm_id, 1)
    await until_at(east, 2, "")
    assert list(east.networks[100].vtep_addresses) == [EAST_END]


async def test_peers_need_no_center(country: Country) -> None:
    peers = ((country.east, country.west, "west"), (country.west, country.east, "east"))
    for lab, other, name in peers:
        await lab.reconfigure(domains=(neighbour(other, name, "peer"),))
    east = await country.east.agent("e1")
    west = await country.west.agent("w1", vtep_address=WEST_END)
    await east.register(vm(1))
    await west.register(vm(2))
    await until_at(east, 2, WEST_END)
    await until_at(west, 1, EAST_END)


async def test_before_and_after_a_move_between_the_domains(country: Country) -> None:
    """A host in each domain, besides those that the VM moves between."""
    move = await Crossing.between(country)
    stays = await country.east.agent("e2")
    far = await country.west.agent("w2", vtep_address=FAR_END)
    await stays.register(vm(2))
    await far.register(vm(3))
    await until_at(far, 1, EAST_END)
    await move.begin()
    await move.prepare()
    await move.copy()
    await until_at(stays, 1, WEST_END)  # at the switch, by its own ledger
    await until_at(far, 1, WEST_END)
    await move.start()
    await move.clean()
    await move.ended()
    await until_at(stays, 1, WEST_END)
    await until_at(move.destination, 2, "198.51.100.2")


async def test_another_owners_network_with_the_same_vni_is_left_alone(country: Country) -> None:
    put = country.west.operator.inventory
    await put.DeleteNetwork(inventory_pb2.DeleteNetworkRequest(network_id="blue-net"))
    await put.PutTenant(inventory_pb2.PutTenantRequest(tenant=types.Tenant(tenant_id="green")))
    network = types.VirtualNetwork(network_id="green-net", tenant="green", vnis=[100])
    await put.PutNetwork(inventory_pb2.PutNetworkRequest(network=network))
    east = await country.east.agent("e1")
    west = await country.west.agent("w1", vtep_address=WEST_END)
    await east.register(vm(1))
    await west.register(vm(2, "green"))
    shared = vm(3, "red")  # one that both have: when that is known, so is whatever else there is
    await west.register(shared)
    await east.register(vm(4, "red"))
    await east.until(lambda: mac(3) in forwards(east, 200))
    assert set(forwards(east)) == {mac(1)} and set(forwards(west)) == {mac(2)}
