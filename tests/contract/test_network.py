"""What every `Network` must do with ports, seen from the wire."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from common.errors import Reason, Refusal
from common.model.profile import (
    ARP,
    ICMP,
    ICMP6,
    IPV4,
    IPV6,
    TCP,
    Acl,
    Action,
    Capability,
    Direction,
    PortRange,
    Profile,
    Rate,
)
from tests.contract import network_random
from tests.contract.network_bench import (
    FREE,
    PING,
    VNI,
    arp,
    deny,
    from_peer,
    from_vm,
    pair,
    peer_port,
    permit,
    port,
    rig,
    tcp,
    to_vm,
)
from tests.contract.network_random import OTHER, PEER, VM
from tests.contract.network_rigs import A, Rig
from vserver.network.frame import (
    BROADCAST,
    FRAGMENT,
    HOP_BY_HOP,
    OPTIONS,
    RARP,
    ROUTING,
    Frame,
    link_local,
)
from vserver.network.policy import verdict

__all__ = ["rig"]  # a fixture


async def test_an_open_port_passes_both_ways(rig: Rig) -> None:
    await pair(rig, port())
    assert await from_vm(rig, tcp(80), PING, arp()) == [True, True, True]
    assert await from_peer(rig, to_vm(tcp(80)), to_vm(PING)) == [True, True]


async def test_a_closed_port_passes_nothing(rig: Rig) -> None:
    await pair(rig, port(is_open=False))
    assert await from_vm(rig, tcp(80), arp()) == [False, False]
    assert await from_peer(rig, to_vm(tcp(80)), replace(tcp(80), source_mac=PEER)) == [False, False]
    observed = (await rig.network(A).observe()).ports["vnet1"]
    assert observed.port == port(is_open=False)
    assert observed.intact and observed.attached


async def test_a_tap_that_nobody_opened_is_closed(rig: Rig) -> None:
    network = rig.network(A)
    await network.open()
    rig.plug_into(A, "vnet1", VNI)
    rig.plug_into(A, "vnet2", VNI)
    await network.apply_port(peer_port())
    assert await from_vm(rig, tcp(80), arp()) == [False, False]
    assert await from_peer(rig, to_vm(tcp(80)), to_vm(arp())) == [False, False]


async def test_policy_waits_for_the_tap(rig: Rig) -> None:
    """I5: what the profile forbids never passes, from the moment that the tap exists."""
    network = rig.network(A)
    await network.open()
    strict = Profile(acl=Acl((deny(direction=Direction.EGRESS, protocol=TCP),)))
    await network.apply_port(port(strict))
    assert not (await network.observe()).ports["vnet1"].attached
    rig.plug_into(A, "vnet2", VNI)
    await network.apply_port(peer_port())
    rig.plug_into(A, "vnet1", VNI)
    assert await from_vm(rig, tcp(80), PING) == [False, True]
    assert not (await network.observe()).ports["vnet1"].attached, "its frames go to all"
    await network.apply_port(port(strict))
    assert (await network.observe()).ports["vnet1"].attached


async def test_rules_are_in_order_and_the_default_comes_last(rig: Rig) -> None:
    out = Direction.EGRESS
    rules = (
        deny(direction=out, protocol=TCP, destination_ports=PortRange(22, 23)),
        permit(direction=out, protocol=TCP, destination_ports=PortRange(1, 1023)),
        permit(direction=out, protocol=ICMP, icmp_type=8),
        deny(direction=Direction.INGRESS, source_prefix="10.1.0.0/24", protocol=ICMP),
    )
    await pair(rig, port(Profile(acl=Acl(rules, default_egress=Action.DENY))))
    sent = (tcp(22), tcp(23), tcp(24), tcp(80), tcp(1024), PING, replace(PING, icmp_type=0), arp())
    assert await from_vm(rig, *sent) == [False, False, True, True, False, True, False, True]
    assert await from_peer(rig, to_vm(tcp(22)), to_vm(PING)) == [True, False]


async def test_neighbour_protocols_need_an_explicit_deny(rig: Rig) -> None:
    closed = Acl((deny(direction=Direction.EGRESS),), Action.DENY, Action.DENY)
    await pair(rig, port(Profile(acl=closed)))
    announcement = Frame(VM, BROADCAST, RARP, sender_mac=VM)
    own = link_local(VM)
    solicitation = Frame(VM, BROADCAST, IPV6, own, "ff02::1", ICMP6, icmp_type=135, nd_target=own)
    neighbourly = (arp(), announcement, solicitation)
    assert await from_vm(rig, *neighbourly, tcp(80)) == [True, True, True, False]
    rules = tuple(deny(direction=Direction.EGRESS, ethertype=t) for t in (ARP, RARP, IPV6))
    await rig.network(A).apply_port(port(Profile(acl=Acl(rules))))
    assert await from_vm(rig, *neighbourly, tcp(80)) == [False, False, False, True]


async def test_forged_senders_are_not_heard(rig: Rig) -> None:
    await pair(rig, port())
    forged = (
        tcp(80, source_mac=OTHER),
        tcp(80, source_ip="10.1.0.66"),
        arp(sender_mac=OTHER),
        arp(source_ip="10.1.0.66"),
        Frame(VM, BROADCAST, RARP, sender_mac=OTHER),
        Frame(VM, PEER, IPV6, "2001:db8::66", "2001:db8::2", TCP, 1024, 80),
        Frame(VM, PEER, 0x8100, "10.1.0.1", "10.1.0.2"),
    )
    assert await from_vm(rig, *forged) == [False] * len(forged)
    await rig.network(A).apply_port(port(FREE))
    assert await from_vm(rig, *forged) == [True] * len(forged)


async def test_guests_are_no_routers_and_no_dhcp_servers(rig: Rig) -> None:
    await pair(rig, port())
    own = link_local(VM)
    icmp6 = Frame(VM, BROADCAST, IPV6, own, "ff02::1", ICMP6, icmp_type=136, nd_target=own)
    udp = Frame(VM, BROADCAST, IPV4, "10.1.0.1", "255.255.255.255", 17, 67, 68)
    asked = replace(udp, source_ip="0.0.0.0", source_port=68, destination_port=67)
    probing = replace(icmp6, source_ip="::", icmp_type=135)
    sent = (
        icmp6,
        probing,
        asked,
        replace(icmp6, nd_target="2001:db8::66"),
        replace(icmp6, icmp_type=134),
        replace(icmp6, icmp_type=137),
        udp,
        replace(asked, destination_port=80),
    )
    assert await from_vm(rig, *sent) == [True, True, True, False, False, False, False, False]


async def test_a_profile_may_permit_a_router_and_a_dhcp_server(rig: Rig) -> None:
    own = link_local(VM)
    router = Frame(VM, BROADCAST, IPV6, own, "ff02::1", ICMP6, icmp_type=134)
    redirect = replace(router, icmp_type=137)
    dhcp = Frame(VM, BROADCAST, IPV4, "10.1.0.1", "255.255.255.255", 17, 67, 68)
    dhcp6 = Frame(VM, BROADCAST, IPV6, own, "ff02::1", 17, 547, 546)
    sent = (router, redirect, dhcp, dhcp6, replace(dhcp, source_ip="10.1.0.66"))
    await pair(rig, port())
    assert await from_vm(rig, *sent) == [False] * 5
    await rig.network(A).apply_port(port(Profile(router_advertisements=True)))
    assert await from_vm(rig, *sent) == [True, False, False, False, False]
    await rig.network(A).apply_port(port(Profile(dhcp_server=True)))
    assert await from_vm(rig, *sent) == [False, False, True, True, False]
    assert (await rig.network(A).observe()).ports["vnet1"].port == port(Profile(dhcp_server=True))


async def test_headers_and_fragments_hide_no_router_advertisement(rig: Rig) -> None:
    """RFC 7113, RFC 6980: not behind other headers, and not in fragments, even where permitted."""
    await pair(rig, port())
    router = Frame(VM, BROADCAST, IPV6, link_local(VM), "ff02::1", ICMP6, icmp_type=134)
    behind = [(HOP_BY_HOP,), (OPTIONS,), (ROUTING,), (HOP_BY_HOP, ROUTING, OPTIONS)]
    pieces = [(FRAGMENT,), (OPTIONS, FRAGMENT), (FRAGMENT, OPTIONS), (FRAGMENT, FRAGMENT)]
    hidden = [replace(router, extensions=headers) for headers in (*behind, *pieces)]
    assert await from_vm(rig, *hidden) == [False] * 8
    await rig.network(A).apply_port(port(Profile(router_advertisements=True)))
    assert await from_vm(rig, *hidden) == [True] * 4 + [False] * 4
    large = Frame(VM, PEER, IPV6, "2001:db8::1", "2001:db8::2", TCP, 1024, 80)
    pushed = [replace(large, extensions=(FRAGMENT, n)) for n in (HOP_BY_HOP, ROUTING, OPTIONS)]
    whole = [replace(large, extensions=headers) for headers in ((), (FRAGMENT,), (OPTIONS,))]
    assert await from_vm(rig, *pushed, *whole) == [False] * 3 + [True] * 3


async def test_without_known_ips_the_mac_is_checked(rig: Rig) -> None:
    await pair(rig, replace(port(), ips=()))
    sent = (tcp(80, source_ip="10.7.7.7"), arp(source_ip="10.7.7.7"), tcp(80, source_mac=OTHER))
    assert await from_vm(rig, *sent) == [True, True, False]


@pytest.mark.parametrize("direction", list(Direction))
async def test_a_rate_is_kept(rig: Rig, direction: Direction) -> None:
    """400 kbit/s is 100 frames in 2 s, and at most a second's worth and the burst besides."""
    rate = Rate(400_000)
    is_egress = direction is Direction.EGRESS
    await pair(rig, port(Profile(egress_rate=rate) if is_egress else Profile(ingress_rate=rate)))
    frame = tcp(80, size=1000) if is_egress else to_vm(tcp(80, size=1000))
    sent, heard = await rig.flood(A, "vnet1" if is_egress else "vnet2", frame, 2.0)
    assert sent > 500
    assert 60 < heard < 250


@pytest.mark.parametrize("seed", range(12))
async def test_the_data_plane_means_what_the_policy_says(rig: Rig, seed: int) -> None:
    """Random policies, random frames: every one is heard exactly if `policy.verdict` permits."""
    random = Random(seed)
    under_test = replace(port(), profile=network_random.profile(random))
    if random.random() < 0.2:
        under_test = replace(under_test, ips=())
    await pair(rig, under_test)
    out = [network_random.frame(random, VM, PEER) for _ in range(150)]
    back = [network_random.frame(random, PEER, VM) for _ in range(150)]
    for frame, heard in zip(out, await from_vm(rig, *out), strict=True):
        assert heard == verdict(under_test, Direction.EGRESS, frame), frame
    for frame, heard in zip(back, await from_peer(rig, *back), strict=True):
        assert heard == verdict(under_test, Direction.INGRESS, frame), frame


async def test_opening_and_closing_take_effect_at_once(rig: Rig) -> None:
    await pair(rig, port())
    for is_open in (False, True, False, True):
        await rig.network(A).apply_port(port(is_open=is_open))
        assert await from_vm(rig, tcp(80)) == [is_open]
        assert await from_peer(rig, to_vm(tcp(80))) == [is_open]


async def test_removing_a_port_closes_it(rig: Rig) -> None:
    await pair(rig, port())
    network = rig.network(A)
    await network.remove_port("vnet1")
    await network.remove_port("vnet77")
    assert await from_vm(rig, tcp(80)) == [False]
    assert "vnet1" not in (await network.observe()).ports


async def test_a_restart_changes_nothing(rig: Rig) -> None:
    acl = Acl((deny(direction=Direction.EGRESS, protocol=TCP, name='a "quoted" name'),))
    await pair(rig, port(Profile(acl=acl, egress_rate=Rate(10_000_000))))
    before = await rig.network(A).observe()
    reborn = rig.network(A)
    await reborn.open()
    assert await reborn.observe() == before
    assert before.ports["vnet1"].intact
    assert await from_vm(rig, tcp(80), PING) == [False, True]


async def test_tampering_is_seen_and_mended(rig: Rig) -> None:
    await pair(rig, port())
    network = rig.network(A)
    await network.observe()
    assert not await network.disturbed()
    rig.tamper(A, "vnet1")
    assert await network.disturbed(), "so that the agent need not wait for its beat"
    assert not (await network.observe()).ports["vnet1"].intact
    assert (await network.observe()).ports["vnet2"].intact
    assert await from_vm(rig, tcp(80)) == [False]
    await network.apply_port(port())
    assert not await network.disturbed(), "this was us"
    assert (await network.observe()).ports["vnet1"].intact
    assert await from_vm(rig, tcp(80)) == [True]


async def test_it_vouches_only_for_what_nobody_has_touched_since(rig: Rig) -> None:
    network = rig.network(A)
    await network.open()
    opened, shut = port(), port(is_open=False)
    assert not network.vouches(shut)
    for wanted, other in ((shut, opened), (opened, shut)):
        await network.apply_port(wanted)
        assert network.vouches(wanted)
        assert not network.vouches(other)
    rig.tamper(A, opened.device)
    assert not network.vouches(opened)


async def test_changes_of_policy_leave_no_gap(rig: Rig) -> None:
    """While policies replace each other, what all permit passes, and what all deny does not."""
    always = deny(direction=Direction.EGRESS, protocol=TCP, destination_ports=PortRange(22, 22))
    others = [deny(direction=Direction.EGRESS, protocol=ICMP, icmp_type=n) for n in range(40)]
    policies = [Profile(acl=Acl((always, *others[n:]))) for n in (0, 20, 39)]
    await pair(rig, port(policies[0]))
    network = rig.network(A)

    async def change() -> None:
        for number in range(30):
            await network.apply_port(port(policies[number % 3]))

    for frame, is_permitted in ((tcp(80), True), (tcp(22), False)):
        (sent, heard), _ = await asyncio.gather(rig.flood(A, "vnet1", frame, 2.0), change())
        assert heard == (sent if is_permitted else 0)


async def test_what_cannot_be_enforced_is_refused(rig: Rig) -> None:
    await pair(rig, port())
    network = rig.network(A)
    assert await network.capabilities() >= {Capability.ACL, Capability.ANTI_SPOOFING}
    with pytest.raises(Refusal, match="vlan") as refused:
        await network.apply_port(port(Profile(vlan=7), is_open=False))
    assert refused.value.reason is Reason.NOT_ENFORCEABLE
    assert (await network.observe()).ports["vnet1"].port == port()


async def test_networks_are_apart(rig: Rig) -> None:
    await pair(rig, port())
    await rig.network(A).apply_port(port(vni=200))
    assert await from_vm(rig, tcp(80), arp()) == [False, False]
    assert (await rig.network(A).observe()).ports["vnet1"].attached
