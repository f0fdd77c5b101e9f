"""Kinds of moves of real guests (A22), with and without libvirt: suspended, shut down, and off."""

from collections.abc import Iterator

import pytest

from common.pb.vsignal.v1 import operations_pb2
from deploy.lab import Guest, Lab, Probe
from tests.hosts.product import RUNNING, SHUT_OFF, Product
from tests.hosts.profiles import ip_of, web_holds
from tests.hosts.watch import Knocker

SUSPEND, COLD = operations_pb2.MOVE_KIND_SUSPEND, operations_pb2.MOVE_KIND_COLD
RESTART, LIVE = operations_pb2.MOVE_KIND_RESTART, operations_pb2.MOVE_KIND_LIVE


@pytest.fixture(scope="module", params=["libvirt", "qemu"])
def lab(hosts_available: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(hosts=3, hypervisor=request.param) as running:
        yield running


def ended(
    product: Product, operation: str, kind: operations_pb2.MoveKind
) -> operations_pb2.Operation:
    done = product.wait_done(operation)
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
    assert done.move_kind == kind
    return done


def test_a_suspended_guest_remembers_everything_but_the_time(
    product: Product, mover: Guest, probe: Probe
) -> None:
    product.wait_registered(mover, on=1)
    with Knocker(probe, ip_of(mover), 22) as denied:
        done = ended(product, product.relocate(mover, 2, SUSPEND), SUSPEND)
        there = mover.on(product.lab.host(2))
        web_holds(probe, there)
    print(f"stood still {done.receipt.downtime_ms:.0f} ms of {done.receipt.total_ms:.0f} ms")
    assert there.console("cat /tmp/note") == "remembered"
    assert done.receipt.downtime_ms > 0
    assert not denied.answers
    assert not mover.state()
    product.wait_agreement()


def test_a_guest_that_shuts_down_for_its_move_boots_at_the_destination(
    product: Product, mover: Guest, probe: Probe
) -> None:
    """The lab's guests do not hear their power button, so the test heeds it for them."""
    there = mover.on(product.lab.host(2))
    product.wait_registered(there, on=2)
    with Knocker(probe, ip_of(mover), 22) as denied:
        operation = product.relocate(there, 1, COLD)
        product.until(
            "the guest is asked to shut down",
            lambda: product.operation(operation).phase == operations_pb2.PHASE_COPYING,
            seen=lambda: product.operation(operation),
        )
        there.console("(sleep 1; poweroff -f) & echo yes")
        done = ended(product, operation, RESTART)
        mover.wait_ready()
        product.wait_registered(mover, on=1)
        web_holds(probe, mover)
    assert mover.console("cat /tmp/note 2>/dev/null || echo nothing") == "nothing"
    receipt = done.receipt
    assert receipt.policy_hash_before == receipt.policy_hash_after != ""
    assert not denied.answers
    assert not there.state()
    product.wait_agreement()


def test_a_guest_that_is_off_moves_and_starts_when_somebody_starts_it(
    product: Product, mover: Guest, probe: Probe
) -> None:
    mover.destroy()
    product.wait_registered(mover, on=1, state=SHUT_OFF)
    ended(product, product.relocate(mover, 2, LIVE), COLD)
    there = mover.on(product.lab.host(2))
    product.wait_registered(there, on=2, state=SHUT_OFF)
    assert not mover.state()
    assert there.state().replace("-", " ") == "shut off"
    product.wait_agreement()
    there.power_on()
    there.wait_ready()
    product.wait_registered(there, on=2, state=RUNNING)
    web_holds(probe, there)
