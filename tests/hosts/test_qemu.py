"""Hosts without libvirt: guests of `vserver guest`, moved live, kept when agents restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.pb.vsignal.v1 import operations_pb2
from deploy.demo.control import stood_still
from deploy.lab import Guest, Lab, Probe
from deploy.lab.qemu_guest import QemuGuest, guests_of
from tests.hosts.product import MOVER, PAUSED, RUNNING, SHUT_OFF, Product, forwarding
from tests.hosts.profiles import ip_of, web_holds
from tests.hosts.watch import Knocker
from tests.hosts.writing import moves_while_it_writes

SANE_BLACKOUT_MS = 5000  # the exact figures are the benchmark's


@pytest.fixture(scope="module")
def lab(hosts_available: None) -> Iterator[Lab]:
    with Lab(hosts=3, hypervisor="qemu") as running:
        yield running


def test_a_guest_made_by_our_own_command_is_registered_with_its_metadata(
    product: Product, mover: Guest, probe: Probe
) -> None:
    record = product.wait_registered(mover, on=1).record
    assert (record.vm.name, record.vm.tenant, record.vm.group) == ("mover", "acme", "web")
    assert (record.vm.resources.vcpus, record.vm.resources.memory_mib) == (1, 128)
    web_holds(probe, mover)


def test_what_our_own_command_does_to_it_is_followed(product: Product, mover: Guest) -> None:
    assert isinstance(mover, QemuGuest)
    for word, state in (("suspend", PAUSED), ("resume", RUNNING)):
        mover.vserver(word, mover.name)
        product.wait_registered(mover, on=1, state=state)
    assert "stopped and started" in mover.vserver("set", mover.name, "--memory-mib", "160")
    assert "changed" in mover.vserver("list")
    mover.vserver("set", mover.name, "--memory-mib", "128")


@pytest.mark.parametrize("to", [2, 1], ids=["there", "back"])
def test_a_live_move_takes_everything_along(
    product: Product, mover: Guest, probe: Probe, to: int
) -> None:
    source, destination = product.lab.host(3 - to), product.lab.host(to)
    web_holds(probe, mover.on(source))
    before = product.wait_registered(mover, on=source.number).record
    pid = mover.on(source).pid
    run = probe.ping_every(ip_of(mover))
    with Knocker(probe, ip_of(mover), 22) as denied:
        done = product.control.move(MOVER.uuid, f"h{to}")
        web_holds(probe, mover.on(destination))
    seen = run.stop()
    print(f"blackout {seen.longest_gap_ms:.0f} ms, move {done.receipt.total_ms:.0f} ms")
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done.failure
    assert done.epoch_after == before.location.epoch + 1
    receipt = product.control.told(done, stood_still).receipt
    assert receipt.bytes > 1_000_000 and receipt.downtime_ms > 0
    assert seen.longest_gap_ms < SANE_BLACKOUT_MS
    assert not denied.answers
    assert mover.on(destination).console("cat /tmp/note") == "remembered"
    assert forwarding(product.lab.host(3))[MOVER.nics[0].mac] == destination.address
    product.wait_agreement()
    assert not Path(f"/proc/{pid}").exists()
    assert MOVER.uuid not in [home.vm_id for home in guests_of(source).all()]
    assert "vsp" not in source.run(["ip", "-br", "link"])


def test_a_guest_that_writes_all_the_time_arrives_whole(product: Product, mover: Guest) -> None:
    moves_while_it_writes(product, mover)


def test_an_agents_restart_keeps_its_guests(product: Product, mover: Guest, probe: Probe) -> None:
    """Stopped, and killed: the guest is the same process, answers all along, and stays closed."""
    pid, epoch = mover.pid, product.record(mover).location.epoch
    for end in (product.agents[1].stop, product.agents[1].kill9):
        attached = product.attachments()
        with Knocker(probe, ip_of(mover), 22) as denied:
            run = probe.ping_every(ip_of(mover))
            end()
            product.agents[1].start()
            product.wait_attached_anew(attached, [1])
            web_holds(probe, mover)
            assert run.stop().longest_gap_ms < SANE_BLACKOUT_MS
        assert not denied.answers
        product.wait_agreement()
    assert (mover.pid, product.record(mover).location.epoch) == (pid, epoch)
    mover.destroy()
    product.wait_registered(mover, on=1, state=SHUT_OFF)
