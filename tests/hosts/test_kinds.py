"""Kinds of moves of real guests (A22), with and without libvirt: suspended, shut down, off, and
with their disks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from deploy.lab import Guest, Host, Lab, Probe, shell
from deploy.lab.qemu_guest import guests_of
from tests.hosts.product import RUNNING, SHUT_OFF, Product, spec
from tests.hosts.profiles import ip_of, web, web_holds
from tests.hosts.watch import Knocker

MOVER = spec("mover", 11, group="web")
SUSPEND, COLD = operations_pb2.MOVE_KIND_SUSPEND, operations_pb2.MOVE_KIND_COLD
RESTART, LIVE = operations_pb2.MOVE_KIND_RESTART, operations_pb2.MOVE_KIND_LIVE

DISK = {"libvirt": "/var/lib/libvirt/images/writer.qcow2", "qemu": "root.qcow2"}
WRITTEN = 16 << 20


@pytest.fixture(scope="module", params=["libvirt", "qemu"])
def lab(hosts_available: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(hosts=3, hypervisor=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def mover(product: Product) -> Guest:
    """It is on h1 before each test, and runs."""
    product.put_group("web", web())
    (guest,) = product.start((MOVER, 1))
    guest.console("echo remembered > /tmp/note")
    return guest


@pytest.fixture(scope="module")
def probe(product: Product, mover: Guest) -> Probe:
    """On the third host, which the VM never visits."""
    return product.probe(9, on=3)


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


# ---- disks ----


@pytest.fixture(scope="module")
def writer(product: Product) -> Guest:
    """On h1; its disk is empty, and on no shared storage."""
    first = product.lab.host(1)
    writer = spec("writer", 12, disk=DISK[first.hypervisor])
    image = image_on(first, writer.uuid)
    image.parent.mkdir(parents=True, exist_ok=True)
    shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"])
    (guest,) = product.start((writer, 1))
    return guest


def image_on(host: Host, vm_id: str) -> Path:
    """The disk's file, as it is seen from outside of the host."""
    path = DISK[host.hypervisor]
    if host.hypervisor == "qemu":
        return guests_of(host).of(vm_id).file(path)
    return host.work / "lib/images" / Path(path).name


def moved_whole(product: Product, guest: Guest, to: int) -> operations_pb2.Operation:
    """Once its host has said how much there is to copy."""
    request = signaling_pb2.RelocateRequest(
        vm_id=guest.spec.uuid, destination=f"h{to}", copy_disks=True, plan_only=True
    )

    def planned() -> signaling_pb2.RelocateResponse:
        return product.control.signaling.Relocate(request, timeout=10)

    def big() -> bool:
        answer = planned()
        return bool(answer.moves) and answer.moves[0].predicted.disk_bytes >= WRITTEN

    product.until("what is on its disk is known", big, seen=planned)
    request.plan_only = False
    started = product.control.signaling.Relocate(request, timeout=10)
    return product.wait_done(started.operation.operation_id)


def keeps_writing(guest: Guest) -> None:
    """Numbers, one after the other, each on its disk before the next."""
    write = "printf '%08d' $n | dd of=/dev/vda bs=512 seek=100000 conv=fsync 2>/dev/null"
    loop = f"n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); {write}; done; echo $n > /tmp/ended"
    guest.console(f"rm -f /tmp/stop /tmp/ended; ({loop}) & echo yes")


def written_last(guest: Guest) -> tuple[int, int]:
    """The last number, as it remembers it and as its disk has it."""
    guest.console("touch /tmp/stop; while [ ! -s /tmp/ended ]; do sleep 1; done", timeout=60)
    guest.console("echo 3 > /proc/sys/vm/drop_caches")
    on_disk = guest.console(
        "dd if=/dev/vda bs=512 skip=100000 count=1 2>/dev/null | head -c 8; echo"
    )
    return int(guest.console("cat /tmp/ended")), int(on_disk)


def test_a_disk_that_is_written_to_goes_there_and_back_whole(
    product: Product, writer: Guest
) -> None:
    writer.console("dd if=/dev/urandom of=/dev/vda bs=1M count=16 2>/dev/null; sync")
    look = "dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum"
    before, here = writer.console(look), writer
    for to in (2, 1):
        keeps_writing(here)
        done = moved_whole(product, here, to)
        assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
        assert done.receipt.disk_bytes >= WRITTEN
        here = writer.on(product.lab.host(to))
        remembered, on_disk = written_last(here)
        assert remembered == on_disk > 0
        assert here.console(look) == before
        there, gone = (image_on(product.lab.host(n), writer.spec.uuid) for n in (to, 3 - to))
        assert there.exists() and not gone.exists()
        product.wait_agreement()
