"""A VM never runs in two places by our doing, and an identity never has two holders: the second is
refused, shown, and not heard; the first does not notice."""

from dataclasses import replace

import pytest

from common.pb.vsignal.v1 import types_pb2
from deploy.lab import Guest, GuestSpec, Probe
from tests.hosts.product import VNI, Product, address, spec
from tests.hosts.profiles import web, web_holds

FIRST = spec("first", 11, group="web")
NIC = FIRST.nics[0]
TWIN = replace(FIRST, name="twin")  # the same uuid, by hand, on another host
SAME_MAC = replace(FIRST, name="samemac", uuid=spec("", 0).uuid)
SAME_IP = replace(
    SAME_MAC, name="sameip", uuid=spec("", 0).uuid, nics=(replace(NIC, mac="52:54:00:10:00:77"),)
)
SIGN = 777  # bytes in a ping: tells apart who sends as the same VM


@pytest.fixture(scope="module")
def first(product: Product) -> Guest:
    product.put_group("web", web())
    (guest,) = product.start((FIRST, 1))
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, first: Guest) -> Probe:
    return product.probe(9, on=2)


def test_a_second_instance_of_a_running_vm_is_refused_and_not_heard(
    product: Product, first: Guest, probe: Probe
) -> None:
    before = product.record(first)
    twin = product.lab.guest(TWIN, on=2).wait_ready()
    alert = wait_alert(product, first, "RUNNING_IN_TWO_PLACES")
    assert alert.severity == types_pb2.SEVERITY_CRITICAL
    assert (alert.evidence["owner"], alert.evidence["claimant"]) == ("h1", "h2")
    is_silent(twin, probe)
    assert signs(first, probe), "the same, from the one that may"
    assert product.record(first).location == before.location
    web_holds(probe, first)
    leave(twin)
    product.wait_agreement()


@pytest.mark.parametrize(
    ("made", "claimed"), [(SAME_MAC, NIC.mac), (SAME_IP, address(11))], ids=["mac", "ip"]
)
def test_an_address_that_another_vm_holds_is_refused_and_not_heard(
    product: Product, first: Guest, probe: Probe, made: GuestSpec, claimed: str
) -> None:
    thief = product.lab.guest(made, on=2).wait_ready()
    alert = wait_alert(product, thief, "CLAIM_HELD")
    assert alert.severity == types_pb2.SEVERITY_CRITICAL
    assert alert.evidence["address"] == claimed
    assert alert.evidence["holder"] == FIRST.uuid
    assert alert.evidence["vni"] == str(VNI)
    is_silent(thief, probe)
    assert product.control.vm(made.uuid) is None
    web_holds(probe, first)
    leave(thief)


def wait_alert(product: Product, guest: Guest, reason: str) -> types_pb2.Alert:
    def look() -> types_pb2.Alert | None:
        return next((a for a in product.alerts(guest) if a.reason == reason), None)

    found = product.until(f"alert {reason}", look, seen=lambda: product.alerts(guest))
    assert found is not None
    return found


def is_silent(second: Guest, probe: Probe) -> None:
    with probe.capture() as seen:
        assert not signs(second, probe)
        assert not seen.count(source_mac=second.spec.nics[0].mac) or second.spec.nics[0] == NIC


def signs(guest: Guest, probe: Probe) -> int:
    """How many frames of a size that only this guest sends now reach the probe.

    It knows its neighbour already, so that what it sends needs no answer first.
    """
    there = probe.address.partition("/")[0]
    with probe.capture() as seen:
        guest.console(f"arp -s {there} {probe.mac}")
        guest.console(f"ping -s {SIGN} -c 3 -W 1 {there}; true")
        return sum(len(f.raw) > SIGN and f.target_mac == probe.mac for f in seen.frames)


def leave(second: Guest) -> None:
    second.destroy()
    second.undefine()
