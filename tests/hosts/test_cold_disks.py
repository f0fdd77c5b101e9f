"""A real guest that is off moves with its disk, by TLS: what it wrote is what it reads there."""

import pytest

from common.pb.vsignal.v1 import operations_pb2
from deploy.lab import Guest
from deploy.lab.images import image_on
from tests.hosts.disks import moved, with_a_disk
from tests.hosts.product import RUNNING, SHUT_OFF, Product
from tests.hosts.two_kinds import lab, product

__all__ = ["lab", "product"]  # fixtures

MARK = "written-before-it-was-off"
pytestmark = pytest.mark.timeout(240)


def test_a_guest_that_is_off_starts_there_with_what_it_wrote_here(product: Product) -> None:
    here, there = product.lab.host(1), product.lab.host(2)
    (guest,) = product.start((with_a_disk("cold", 33, here), 1))
    guest.console(f"echo {MARK} | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null")
    guest.destroy()
    product.wait_registered(guest, on=1, state=SHUT_OFF)
    done = moved(product, guest, 2, least=1)
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
    assert (done.move_kind, done.receipt.disk_bytes > 0) == (operations_pb2.MOVE_KIND_COLD, True)
    assert not image_on(here, guest.spec).exists(), "the ledger has its new owner"
    copy: Guest = guest.on(there)
    product.wait_registered(copy, on=2, state=SHUT_OFF)
    copy.power_on()
    copy.wait_ready()
    product.wait_registered(copy, on=2, state=RUNNING)
    assert copy.console("dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n 1") == MARK
    product.wait_agreement()
