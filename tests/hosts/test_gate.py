"""The gate: no CPU of a guest that moves runs before the ledger says so, and a source that stands
still waits for it too, whatever the two libvirtds make of the copy."""

from collections.abc import Iterator

import pytest

from common.pb.vsignal.v1 import operations_pb2, types_pb2
from deploy.demo.control import stood_still
from deploy.lab import Guest, Lab, Probe
from tests.hosts.product import MOVER, SHUT_OFF, Product
from tests.hosts.profiles import ip_of, web_holds
from vserver.hypervisor.libvirt.gate import checkup
from vserver.hypervisor.libvirt.source_process import run_directory

OFF = ("", "shut off")
PATIENCE = 10.0  # of the gate: vserver/hypervisor/libvirt/gate


@pytest.fixture(scope="module")
def lab(hosts_available: None) -> Iterator[Lab]:
    with Lab(hosts=3, gated=True) as running:
        yield running


@pytest.fixture(scope="module")
def probe(product: Product, mover: Guest) -> Probe:
    return product.probe(9, on=3)


@pytest.mark.parametrize("to", [2, 1], ids=["there", "back"])
def test_a_move_passes_the_gate(product: Product, mover: Guest, probe: Probe, to: int) -> None:
    before = product.wait_registered(mover, on=3 - to).record
    done = product.control.move(MOVER.uuid, f"h{to}")
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done.failure
    assert done.gated and done.held
    receipt = product.control.told(done, stood_still).receipt
    assert receipt.bytes > 1_000_000 and receipt.downtime_ms > 0
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
    with product.silent():
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


def test_the_doctor_finds_the_gate_at_work(product: Product) -> None:
    run = run_directory(product.lab.host(1).libvirt_uri)
    assert run is not None
    product.until(
        "libvirtd asks, and the agent answers",
        lambda: all(works for _, works, _ in checkup.examine(run)),
        seen=lambda: checkup.examine(run),
    )


def test_a_move_that_was_called_off_keeps_nobody_from_starting(
    product: Product, mover: Guest
) -> None:
    """Mostly it is called off before its copy began: then the destination was only made ready."""
    product.wait_registered(mover, on=1)
    mover.limit_copy(8)
    operation = product.relocate(mover, to=2)
    product.cancel(operation)
    called_off = product.wait_done(operation)
    assert called_off.phase == operations_pb2.PHASE_CANCELLED, called_off
    mover.destroy()
    product.wait_registered(mover, on=1, state=SHUT_OFF)
    there = mover.on(product.lab.host(2))
    moved = product.wait_done(product.relocate(mover, to=2))
    assert moved.phase == operations_pb2.PHASE_SUCCEEDED, moved
    there.power_on()
    assert there.state() == "running"
    product.wait_registered(there, on=2)
