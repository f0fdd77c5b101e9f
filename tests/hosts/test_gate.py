"""The gate: no CPU of a guest that moves runs before the ledger says so, and a source that stands
still waits for it too, whatever the two libvirtds make of the copy."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from common.pb.vsignal.v1 import operations_pb2, types_pb2
from deploy.lab import Guest, Lab, Probe
from tests.hosts.product import Product, spec
from tests.hosts.profiles import ip_of, web, web_holds

MOVER = spec("mover", 11, group="web")
OFF = ("", "shut off")
PATIENCE = 10.0  # of the gate: vserver/hypervisor/libvirt/gate


@pytest.fixture(scope="module")
def lab(hosts_available: None) -> Iterator[Lab]:
    with Lab(hosts=3, gated=True) as running:
        yield running


@pytest.fixture(scope="module")
def mover(product: Product) -> Guest:
    product.put_group("web", web())
    (guest,) = product.start((MOVER, 1))
    guest.console("echo remembered > /tmp/note")
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, mover: Guest) -> Probe:
    return product.probe(9, on=3)


@pytest.mark.parametrize("to", [2, 1], ids=["there", "back"])
def test_a_move_passes_the_gate(product: Product, mover: Guest, probe: Probe, to: int) -> None:
    before = product.wait_registered(mover, on=3 - to).record
    done = product.control.move(MOVER.uuid, f"h{to}")
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done.failure
    assert done.gated and done.held
    assert done.epoch_after == before.location.epoch + 1
    there = mover.on(product.lab.host(to))
    web_holds(probe, there)
    assert there.console("cat /tmp/note") == "remembered"
    assert mover.on(product.lab.host(3 - to)).state() == ""
    product.wait_agreement()


def test_what_is_held_comes_back_when_the_ledger_was_silent_at_the_switch(
    product: Product, mover: Guest, probe: Probe
) -> None:
    """The destination is refused in the end, and the source waits for a word, with its memory."""
    before = product.wait_registered(mover, on=1).record
    mover.limit_copy(8)
    operation = product.relocate(mover, to=2)
    product.wait_copying(operation)
    with _silent(product):
        mover.limit_copy(10_000)
        product.until("the guest stands still", lambda: mover.state() == "paused")
        there = mover.on(product.lab.host(2))
        product.until("the copy is given up", lambda: there.state() in OFF, PATIENCE + 20)
        assert mover.state() == "paused"
        resumed = mover.host.virsh("resume", mover.name, check=False, timeout=60)
        assert mover.state() == "paused", f"by hand it runs as little as by libvirt: {resumed}"
    done = product.wait_done(operation)
    assert done.phase == operations_pb2.PHASE_FAILED and done.failure.reason, done
    assert done.epoch_after == before.location.epoch + 2
    product.until("it runs where it was", lambda: mover.state() == "running")
    record = product.wait_registered(mover, on=1).record
    assert record.location.state == types_pb2.VM_STATE_RUNNING
    web_holds(probe, mover)
    assert mover.console("cat /tmp/note") == "remembered"
    product.wait_agreement()
    assert probe.ping(ip_of(mover))


def test_a_vm_that_no_move_concerns_is_its_owners(product: Product, mover: Guest) -> None:
    """libvirt asks for every guest; people stop and start theirs as ever."""
    mover.host.virsh("suspend", mover.name)
    mover.host.virsh("resume", mover.name)
    assert mover.state() == "running"


@contextmanager
def _silent(product: Product) -> Iterator[None]:
    """The vCenter stands still: whoever asks it gets no answer, and no refusal either."""
    assert product.center.process is not None
    pid = product.center.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
