"""A guest that writes all the time, moved: each page as it was when the guest last wrote it."""

from common.pb.vsignal.v1 import operations_pb2
from deploy.lab import Guest
from tests.hosts.product import Product

# Whole pages are rewritten without pause, in processes that begin and end all the time.
_WRITE = "while :; do cat /dev/shm/one > /dev/shm/two; done"


def moves_while_it_writes(product: Product, guest: Guest) -> None:
    """There and back. A page that is lost on the way stops the guest, or spoils what it wrote."""
    guest.console("dd if=/dev/urandom of=/dev/shm/one bs=1M count=8 2>/dev/null", 60)
    first = guest.console("md5sum < /dev/shm/one")
    guest.console(f"({_WRITE}) >/dev/null 2>&1 & echo $! > /tmp/writer")
    there = product.lab.host(3 - guest.host.number)
    for host in (there, guest.host):
        done = product.control.move(guest.spec.uuid, f"h{host.number}")
        assert done.phase == operations_pb2.PHASE_SUCCEEDED, done.failure
        assert guest.on(host).console("md5sum < /dev/shm/one", 60) == first
    guest.console("kill $(cat /tmp/writer); sleep 1; rm -f /dev/shm/one /dev/shm/two", 60)
