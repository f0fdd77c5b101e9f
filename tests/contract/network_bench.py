"""What the tests of a `Network` share: rigs, ports, and frames that are sent and heard or not."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from common.model.profile import ARP, ICMP, IPV4, TCP, AclRule, Action, Profile
from common.model.wanted import Forward, WantedNetwork
from tests.contract.network_random import PEER, VM
from tests.contract.network_rigs import A, B, C, LinuxRig, MemoryRig, Rig, why_no_linux_rig
from vserver.network.frame import BROADCAST, Frame
from vserver.network.port import Ear, Port, Sign

VNI = 100
WITHIN_S = 30.0
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


async def heard_by(ear: Ear, questions: int) -> list[Sign]:
    """What comes of so many questions, when all have gone out; an answer may follow later."""
    signs: list[Sign] = []
    for _ in range(questions):
        ear.ask()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(WITHIN_S):
        while sum(not sign.is_answer for sign in signs) < questions:
            signs += ear.heard()
            await asyncio.sleep(0.01)
    return signs


async def until_answered(ear: Ear) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not any(sign.is_answer for sign in await heard_by(ear, 1)):
            pass
