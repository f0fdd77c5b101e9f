"""A standby of a real guest: what it wrote before the fence is there when it is promoted."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2, types_pb2
from deploy.lab import Guest, Host
from deploy.lab.images import image_on
from tests.hosts.disks import with_a_disk
from tests.hosts.product import Product
from tests.hosts.two_kinds import lab, product

__all__ = ["lab", "product"]  # fixtures

MARK = "written-before-the-fence"
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def guest(product: Product) -> Guest:
    (guest,) = product.start((with_a_disk("precious", 31, product.lab.host(1)), 1))
    return guest


def in_step(product: Product, guest: Guest) -> str:
    """A standby on h2; the operation's id."""
    request = signaling_pb2.ReplicateRequest(
        vm_id=guest.spec.uuid, near="h2", standby=True, plan_only=True
    )

    def planned() -> signaling_pb2.ReplicateResponse:
        return product.control.signaling.Replicate(request, timeout=10)

    product.until("its disks are known", lambda: not planned().objections, seen=planned)
    request.plan_only = False
    begun = product.control.signaling.Replicate(request, timeout=10).operation.operation_id

    def phase() -> int:
        return product.operation(begun).phase

    mirroring = operations_pb2.PHASE_MIRRORING
    product.until("it is in step", lambda: phase() == mirroring, 60.0, phase)
    return begun


def receivers(host: Host) -> list[str]:
    """Every process that takes copies of disks there."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # no process, or not any more
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            if words.startswith("qemu-storage-daemon") and str(host.work) in words:
                found.append(entry.name)
    return found


def test_a_cancelled_standby_leaves_neither_file_nor_process(
    product: Product, guest: Guest
) -> None:
    there = product.lab.host(2)
    begun = in_step(product, guest)
    assert image_on(there, guest.spec).exists() and receivers(there)
    product.cancel(begun)
    assert product.wait_done(begun).phase == operations_pb2.PHASE_CANCELLED
    assert not image_on(there, guest.spec).exists()
    assert not receivers(there)
    assert guest.console("echo still here") == "still here"


def test_what_was_written_before_the_fence_is_on_the_promoted_copy(
    product: Product, guest: Guest
) -> None:
    begun = in_step(product, guest)
    before = product.record(guest).location.epoch
    guest.console(f"echo {MARK} | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null")
    product.agents[1].kill9()
    power_cut(product.lab.host(1), guest)

    def silent() -> bool:
        servers = {load.server.server_id: load.server for load in product.control.servers()}
        return servers["h1"].liveness == types_pb2.LIVENESS_SILENT

    product.until("h1 is silent", silent, 60.0)
    fence = operations_pb2.FenceRequest(server_id="h1", word="its plug is in my hand")
    product.control.operations.Fence(fence, timeout=10)
    promote = operations_pb2.PromoteRequest(vm_id=guest.spec.uuid)
    promoted = product.control.operations.Promote(promote, timeout=10)
    assert promoted.operation_id == begun
    done = product.wait_done(begun)
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
    assert done.epoch_after == before + 1
    copy = guest.on(product.lab.host(2))
    copy.wait_ready()
    product.wait_registered(copy, on=2)
    assert copy.console("dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n 1") == MARK
    assert not receivers(copy.host)
    product.agents[1].start()  # what is left there is off, and stays so
    product.wait_attached()
    product.wait_agreement(30)
    product.wait_registered(copy, on=2)


def power_cut(host: Host, guest: Guest) -> None:
    """Nobody on the host sees to it that anything ends well."""
    os.kill(guest.on(host).pid, signal.SIGKILL)
