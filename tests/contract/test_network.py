"""What every `Network` must do, seen from the wire: frames are sent, and heard or not."""

import asyncio
import os
from collections.abc import Iterator
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
    AclRule,
    Action,
    Capability,
    Direction,
    PortRange,
    Profile,
    Rate,
)
from common.model.wanted import Forward, WantedNetwork
from tests.contract import network_random
from tests.contract.network_random import OTHER, PEER, VM
from tests.contract.network_rigs import A, B, C, LinuxRig, MemoryRig, Rig, why_no_linux_rig
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
from vserver.network.linux import LinuxNetwork
from vserver.network.policy import verdict
from vserver.network.port import Port

VNI = 100
STANDARD = Profile()
FREE = Profile(anti_spoofing=False)


def linux_rig() -> LinuxRig:
    """Real hosts; or a skip that says why not, which CI must not take for success."""
    reason = why_no_linux_rig()
    if reason and os.environ.get("CI"):
        pytest.fail(f"no real data plane in CI: {reason}")
    if reason:
        pytest.skip(reason)
    return LinuxRig()


@pytest.fixture(params=["memory", "linux"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made: Rig = MemoryRig() if request.param == "memory" else linux_rig()
    yield made
    made.close()


def port(profile: Profile = STANDARD, *, is_open: bool = True, vni: int = VNI) -> Port:
    """The port under test."""
    return Port("vnet1", VM, ("10.1.0.1", "2001:db8::1"), vni, profile, is_open)


def peer_port(vni: int = VNI) -> Port:
    """Hears and says everything."""
    return Port("vnet2", PEER, (), vni, FREE, is_open=True)


def tcp(number: int, **fields: object) -> Frame:
    frame = Frame(VM, PEER, IPV4, "10.1.0.1", "10.1.0.2", TCP, 1024, number)
    return replace(frame, **fields)  # type: ignore[arg-type]


def to_vm(frame: Frame) -> Frame:
    """The same from the peer."""
    ips = {"source_ip": "10.1.0.2", "destination_ip": "10.1.0.1"} if frame.is_ip else {}
    return replace(frame, source_mac=PEER, destination_mac=VM, **ips)


def arp(**fields: object) -> Frame:
    frame = Frame(VM, BROADCAST, ARP, "10.1.0.1", "10.1.0.2", sender_mac=VM)
    return replace(frame, **fields)  # type: ignore[arg-type]


PING = Frame(VM, PEER, IPV4, "10.1.0.1", "10.1.0.2", ICMP, icmp_type=8, icmp_code=0)


async def pair(rig: Rig, under_test: Port) -> None:
    """The port under test and its peer on one host."""
    network = rig.network(A)
    await network.open()
    for one in (under_test, peer_port()):
        rig.plug(A, one.device)
        await network.apply_port(one)


async def from_vm(rig: Rig, *frames: Frame) -> list[bool]:
    return [(A, "vnet2") in heard for heard in await rig.send(A, "vnet1", frames)]


async def from_peer(rig: Rig, *frames: Frame) -> list[bool]:
    return [(A, "vnet1") in heard for heard in await rig.send(A, "vnet2", frames)]


def deny(**fields: object) -> AclRule:
    return AclRule(Action.DENY, **fields)  # type: ignore[arg-type]


def permit(**fields: object) -> AclRule:
    return AclRule(Action.PERMIT, **fields)  # type: ignore[arg-type]


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


def wanted(forwards: dict[str, str], *vteps: str) -> WantedNetwork:
    entries = tuple(Forward(mac, forwards[mac]) for mac in sorted(forwards))
    return WantedNetwork(VNI, "blue", entries, vteps)


async def peers_elsewhere(rig: Rig) -> None:
    """The VM on A; one peer each on B and C with the same MAC, as before and after a move."""
    for host, one in ((A, port()), (B, peer_port()), (C, peer_port())):
        network = rig.network(host)
        await network.open()
        others = [other for other in (A, B, C) if other != host]
        await network.apply_network(wanted({VM: A} if host != A else {PEER: B}, *others))
        rig.plug(host, one.device)
        await network.apply_port(one)


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


@pytest.fixture
def kernel() -> Iterator[LinuxRig]:
    made = linux_rig()
    yield made
    made.close()


@pytest.mark.parametrize("hook", ["prerouting", "postrouting"])
async def test_linux_the_default_is_mended_by_looking(kernel: LinuxRig, hook: str) -> None:
    await pair(kernel, port())
    network = kernel.network(A)
    await network.remove_port("vnet1")
    kernel.run(A, f"nft flush chain bridge vsignal {hook}")
    assert not (await network.observe()).ports["vnet2"].intact
    assert (await network.observe()).ports["vnet2"].intact
    assert await from_vm(kernel, tcp(80)) == [False]
    assert await from_peer(kernel, to_vm(tcp(80))) == [False]


async def test_linux_a_flushed_ruleset_is_closed_by_looking(kernel: LinuxRig) -> None:
    await pair(kernel, port())
    network = kernel.network(A)
    kernel.run(A, "nft flush ruleset")
    assert dict((await network.observe()).ports) == {}
    assert await from_vm(kernel, tcp(80)) == [False]


async def test_linux_a_verdict_by_hand_is_seen_and_mended(kernel: LinuxRig) -> None:
    await pair(kernel, port(is_open=False))
    network = kernel.network(A)
    kernel.run(A, 'nft add element bridge vsignal from_vm { "vnet1" : accept }')
    assert not (await network.observe()).ports["vnet1"].intact
    await network.apply_port(port(is_open=False))
    assert (await network.observe()).ports["vnet1"].intact
    assert await from_vm(kernel, tcp(80)) == [False]


async def test_linux_a_port_that_nobody_can_vouch_for_is_closed(kernel: LinuxRig) -> None:
    await pair(kernel, port(FREE))
    kernel.run(A, "nft flush chain bridge vsignal spec-vnet1")
    kernel.run(A, 'nft add element bridge vsignal from_vm { "vnet9" : accept }')
    assert set((await kernel.network(A).observe()).ports) == {"vnet2"}
    assert await from_vm(kernel, tcp(80)) == [False]
    assert "vnet9" not in kernel.run(A, "nft list table bridge vsignal")


async def test_linux_taps_of_any_name_are_closed(kernel: LinuxRig) -> None:
    """Known once, or there at the start: a name without a known prefix is guarded too."""
    kernel.plug_into(A, "vnet2", VNI)
    kernel.plug_into(A, "web0", VNI)
    kernel.plug_tun(A, "db0", VNI)
    network = kernel.network(A)
    await network.open()
    await network.apply_port(peer_port())
    named = replace(port(), device="web0")
    await network.apply_port(named)
    assert await kernel.send(A, "web0", [tcp(80)]) == [{(A, "vnet2")}]
    kernel.tamper(A, "web0")
    assert await kernel.send(A, "web0", [tcp(80)]) == [set()]
    await network.apply_port(named)
    await network.remove_port("web0")
    assert await kernel.send(A, "web0", [tcp(80)]) == [set()]
    assert '"db0"' in kernel.run(A, "nft list set bridge vsignal closed")


async def test_linux_the_lot_is_removed_but_what_was_there_before(kernel: LinuxRig) -> None:
    before = kernel.run(A, "ip -br link")
    kernel.run(A, "ip link add br-200 type bridge")
    network = kernel.network(A)
    await network.open()
    for vni in (VNI, 200, 300):
        await network.apply_network(replace(wanted({PEER: B}, B), vni=vni))
        await network.apply_port(replace(port(vni=vni), device=f"vnet{vni}"))
    await network.remove_network(300)
    assert "br-300" not in kernel.run(A, "ip -br link")
    await network.purge()
    assert kernel.run(A, "nft list ruleset") == ""
    kernel.run(A, "ip link del br-200")
    assert kernel.run(A, "ip -br link") == before


async def test_linux_repeating_changes_nothing(kernel: LinuxRig) -> None:
    await peers_elsewhere(kernel)
    network = kernel.network(A)
    before = kernel.run(A, "bridge fdb") + kernel.run(A, "ip link")
    await network.apply_network(wanted({PEER: B}, B, C))
    await network.apply_port(port())
    assert kernel.run(A, "bridge fdb") + kernel.run(A, "ip link") == before


async def test_linux_nothing_gets_into_nft_unchecked(kernel: LinuxRig) -> None:
    network = kernel.network(A)
    await network.open()
    evil = "52:54:00:00:00:01 accept\nadd table inet evil"
    rule = AclRule(Action.DENY, Direction.EGRESS, source_prefix="10.0.0.0/8 accept")
    ports = (
        replace(port(), mac=evil),
        replace(port(), device='x" accept'),
        replace(port(), ips=("10.1.0.1 }",)),
        port(Profile(acl=Acl((rule,)))),
    )
    for one in ports:
        with pytest.raises(Refusal) as refused:
            await network.apply_port(one)
        assert refused.value.reason is Reason.INVALID_FIELD


async def test_linux_says_what_it_tried(kernel: LinuxRig) -> None:
    before = kernel.run(A, "ip -br link")
    network = kernel.network(A)
    assert isinstance(network, LinuxNetwork)
    findings = {name: works for name, works, _ in await network.diagnose()}
    assert findings["nftables bridge family"]
    assert findings["acl"] == (Capability.ACL in await network.capabilities())
    assert not findings["vlan"]
    assert kernel.run(A, "ip -br link") == before
    assert kernel.run(A, "nft list ruleset") == ""
