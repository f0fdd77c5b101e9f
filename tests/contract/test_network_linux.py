"""What a Linux host's data plane must do besides: what people do by hand is seen and mended."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from common.errors import Reason, Refusal
from common.model.profile import (
    ARP,
    ICMP6,
    IPV6,
    Acl,
    AclRule,
    Action,
    Capability,
    Direction,
    Profile,
)
from tests.contract.network_bench import (
    FREE,
    VNI,
    from_peer,
    from_vm,
    linux_rig,
    pair,
    peer_port,
    peers_elsewhere,
    port,
    tcp,
    to_vm,
    until_answered,
    wanted,
)
from tests.contract.network_random import PEER, VM
from tests.contract.network_rigs import A, B, C, LinuxRig
from vserver.network.linux import LinuxNetwork
from vserver.network.port import Neighbour


@pytest.fixture
def kernel() -> Iterator[LinuxRig]:
    made = linux_rig()
    yield made
    made.close()


@pytest.mark.parametrize("ip", ["10.1.0.2", "2001:db8::2"])
async def test_linux_asking_and_answering_reach_nobody_else(kernel: LinuxRig, ip: str) -> None:
    """The guest on B has the address. C's hears nothing of it."""
    await peers_elsewhere(kernel)
    kernel.answer(B, "vnet2", PEER, ip)
    with kernel.network(A).listen(Neighbour(VNI, PEER, ip, asker=VM)) as ear:
        for _ in range(3):
            await until_answered(ear)
    assert sum(map(resolves, kernel.hear(B, "vnet2"))), "the question was heard where it belongs"
    assert sum(map(resolves, kernel.hear(A, "vnet1"))), "and the answer"
    assert not sum(map(resolves, kernel.hear(C, "vnet2")))


def resolves(frame: bytes) -> bool:
    """ARP, or a neighbour's solicitation or advertisement."""
    kind = int.from_bytes(frame[12:14], "big")
    return kind == ARP or (kind == IPV6 and frame[20] == ICMP6 and frame[54] in (135, 136))


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
