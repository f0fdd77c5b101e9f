"""What every `Network` must do between hosts: the way to guests elsewhere, and hearing them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from common.errors import Refusal
from common.model.profile import Acl, Action, Profile
from tests.contract.network_bench import (
    VNI,
    arp,
    heard_by,
    peer_port,
    peers_elsewhere,
    rig,
    tcp,
    until_answered,
    wanted,
)
from tests.contract.network_random import PEER, VM
from tests.contract.network_rigs import A, B, C, Rig
from vserver.network.frame import Frame
from vserver.network.port import Neighbour

__all__ = ["rig"]  # a fixture


async def heard_from_a(rig: Rig, *frames: Frame) -> list[set[str]]:
    return [{host for host, _ in heard} for heard in await rig.send(A, "vnet1", frames)]


async def test_forwards_lead_through_the_tunnel_and_follow_a_move(rig: Rig) -> None:
    await peers_elsewhere(rig)
    assert await heard_from_a(rig, tcp(80), arp()) == [{B}, {B, C}]
    network = rig.network(A)
    await network.apply_network(wanted({PEER: C}, B, C))
    assert await heard_from_a(rig, tcp(80)) == [{C}]
    assert (await network.observe()).networks == {VNI: wanted({PEER: C}, B, C)}
    await network.apply_network(wanted({}, C))
    assert await heard_from_a(rig, tcp(80), arp()) == [{C}, {C}]
    assert (await network.observe()).networks == {VNI: wanted({}, C)}


async def test_a_known_state_is_amended(rig: Rig) -> None:
    await peers_elsewhere(rig)
    network = rig.network(A)
    states = [wanted({PEER: B}, B, C), wanted({PEER: C}, B), wanted({}, B, C), wanted({PEER: B}, C)]
    for known, next_one in pairwise(states):
        await network.apply_network(next_one, known)
        assert (await network.observe()).networks == {VNI: next_one}
    assert await heard_from_a(rig, tcp(80), arp()) == [{B}, {C}]


async def test_what_is_known_wrongly_is_laid_as_a_whole(rig: Rig) -> None:
    """The tunnel is gone, or has an end that nobody knew of."""
    await peers_elsewhere(rig)
    network = rig.network(A)
    await network.remove_network(VNI)
    await network.apply_network(wanted({PEER: C}, C), known=wanted({PEER: C}, C))
    assert (await network.observe()).networks == {VNI: wanted({PEER: C}, C)}
    await network.apply_network(wanted({PEER: B}, B, C), known=wanted({}))
    assert (await network.observe()).networks == {VNI: wanted({PEER: B}, B, C)}


async def test_an_arriving_vm_draws_frames_only_once_it_is_open(rig: Rig) -> None:
    """While it is prepared here, the VM still runs on B; a stale forward does not take it back."""
    await peers_elsewhere(rig)
    network = rig.network(A)
    rig.plug(A, "vnet2")
    await network.apply_port(replace(peer_port(), is_open=False))
    assert await heard_from_a(rig, tcp(80)) == [{B}]
    await network.apply_port(peer_port())
    assert await heard_from_a(rig, tcp(80)) == [{A}]
    await network.apply_network(wanted({PEER: B}, B, C))
    assert await heard_from_a(rig, tcp(80)) == [{A}]
    await network.apply_network(wanted({}, B, C))
    assert await heard_from_a(rig, tcp(80)) == [{A}]


async def test_a_vm_that_left_is_followed_before_its_port_is_gone(rig: Rig) -> None:
    await peers_elsewhere(rig)
    network = rig.network(A)
    rig.plug(A, "vnet2")
    await network.apply_network(wanted({}, B, C))
    await network.apply_port(peer_port())
    assert await heard_from_a(rig, tcp(80)) == [{A}]
    await network.apply_network(wanted({PEER: C}, B, C))
    assert await heard_from_a(rig, tcp(80)) == [{C}]
    await network.remove_port("vnet2")
    assert await heard_from_a(rig, tcp(80)) == [{C}]


async def test_a_vm_that_came_back_while_its_port_was_open_is_found_again(rig: Rig) -> None:
    """A move that was taken back: until the port is applied again, its frames would go to all."""
    await peers_elsewhere(rig)
    network = rig.network(A)
    rig.plug(A, "vnet2")
    for forwards in ({}, {PEER: C}):
        await network.apply_network(wanted(forwards, B, C))
        if not forwards:
            await network.apply_port(peer_port())
        assert (await network.observe()).ports["vnet2"].attached
    await network.apply_network(wanted({}, B, C))
    assert not (await network.observe()).ports["vnet2"].attached
    await network.apply_port(peer_port())
    assert (await network.observe()).ports["vnet2"].attached
    assert await heard_from_a(rig, tcp(80)) == [{A}]


@pytest.mark.parametrize("ip", ["10.1.0.2", "2001:db8::2"])
async def test_a_guest_elsewhere_is_heard_before_and_after_its_move(rig: Rig, ip: str) -> None:
    """Asked over the overlay in the name of a VM of this host, whatever its profile forbids, and
    though it may send nothing but what it owns."""
    await peers_elsewhere(rig)
    network, deaf = rig.network(A), Acl((), Action.DENY, Action.DENY)
    theirs = replace(peer_port(), ips=(ip,), profile=Profile(acl=deaf))
    await rig.network(B).apply_port(theirs)
    rig.answer(B, "vnet2", PEER, ip)
    before = await network.observe()
    with network.listen(Neighbour(VNI, PEER, ip, asker=VM)) as ear:
        await until_answered(ear)
        await rig.network(B).apply_port(replace(theirs, is_open=False))
        await heard_by(ear, 3)  # what was still on its way
        signs = await heard_by(ear, 3)
        assert len(signs) == 3 and not any(sign.is_answer for sign in signs)
        assert await network.observe() == before, "listening changes nothing"
        rig.answer(C, "vnet2", PEER, ip)
        await rig.network(C).apply_port(theirs)
        await network.apply_network(wanted({PEER: C}, B, C))
        await until_answered(ear)


async def test_nobody_is_listened_to_on_a_network_that_is_not_here(rig: Rig) -> None:
    await peers_elsewhere(rig)
    with pytest.raises((Refusal, OSError)):  # noqa: SIM117
        with rig.network(A).listen(Neighbour(777, PEER, "10.1.0.2", asker=VM)):
            pass


async def test_a_removed_network_is_gone(rig: Rig) -> None:
    await peers_elsewhere(rig)
    network = rig.network(A)
    await network.remove_network(VNI)
    await network.remove_network(777)
    assert (await network.observe()).networks == {}
    assert await heard_from_a(rig, tcp(80), arp()) == [set(), set()]


async def test_purge_leaves_nothing(rig: Rig) -> None:
    await peers_elsewhere(rig)
    network = rig.network(A)
    await network.purge()
    observed = await network.observe()
    assert (dict(observed.ports), dict(observed.networks)) == ({}, {})


# What only a kernel can get into: somebody else's hands in it, and what is left there.
