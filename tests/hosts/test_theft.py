"""Two hosts claim one MAC and one IP: an alarm within 2 s; the first keeps working, and the thief
hears and says nothing."""

import socket
import time
from dataclasses import replace

import pytest

from deploy.lab import Guest, Probe
from deploy.lab.capture import Capture, Frame
from tests.hosts.product import Product, address, in_force_on, spec
from tests.hosts.profiles import ip_of

VICTIM = spec("victim", 12)
THIEF = replace(spec("thief", 13), nics=VICTIM.nics)
PROBE = address(9)
WITHIN_S = 2.0
ASKED_BY_THIEF, ASKED_BY_VICTIM, ASKED_BY_PROBE = address(201), address(202), address(203)


def asks_for(frames: list[Frame], ip: str) -> int:
    """ARP requests for an address that nobody has: by it they are known again."""
    wanted = socket.inet_aton(ip)
    return sum(frame.is_arp and frame.raw[38:42] == wanted for frame in frames)


@pytest.fixture(scope="module")
def victim(product: Product) -> Guest:
    (guest,) = product.start((VICTIM, 1))
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, victim: Guest) -> Probe:
    probe = product.probe(9, on=2)
    probe.wait_ping(ip_of(victim))
    return probe


def test_a_thief_is_alarmed_about_and_gets_nothing(
    product: Product, victim: Guest, probe: Probe
) -> None:
    before = product.record(victim)
    asked = time.time()
    thief = product.lab.guest(THIEF, on=2)
    started = time.time()
    (alert,) = product.until("an alert", lambda: product.alerts(thief), WITHIN_S)
    raised = alert.raised_at.ToNanoseconds() / 1e9
    print(f"alarm {raised - asked:.2f} s after the thief's start was asked for,", end=" ")
    print(f"which took {started - asked:.2f} s")
    assert raised - started < WITHIN_S
    assert alert.reason == "CLAIM_HELD"
    sides = ("holder", "holder_server", "claimant", "claimant_server")
    told = [alert.evidence[side] for side in sides]
    assert told == [VICTIM.uuid, "h1", THIEF.uuid, "h2"]

    thief.wait_ready()
    with (
        probe.capture() as at_probe,
        Capture(victim.host.netns, victim.tap) as at_victim,
        Capture(thief.host.netns, thief.tap) as at_thief,
    ):
        thief.console(f"arping -c 2 -w 2 -I eth0 {ASKED_BY_THIEF}; true")
        victim.console(f"arping -c 2 -w 2 -I eth0 {ASKED_BY_VICTIM}; true")
        probe.run(["ping", "-c", "1", "-W", "1", ASKED_BY_PROBE], check=False)
        assert asks_for(at_thief.frames, ASKED_BY_THIEF), "it did try"
        assert not asks_for(at_probe.frames, ASKED_BY_THIEF)
        assert not asks_for(at_victim.frames, ASKED_BY_THIEF)
        assert asks_for(at_probe.frames, ASKED_BY_VICTIM), "the first is heard"
        assert asks_for(at_victim.frames, ASKED_BY_PROBE), "and hears"
        assert not asks_for(at_thief.frames, ASKED_BY_PROBE)
    assert probe.ping(ip_of(victim))
    assert product.record(victim) == before
    now = product.control.vm(VICTIM.uuid)
    assert now is not None and in_force_on(now)
    assert product.control.vm(THIEF.uuid) is None
