"""Guests whose disks are on their hosts alone."""

from typing import Any

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from deploy.lab import Guest, GuestSpec, Host
from deploy.lab.images import disk_path, make_image
from tests.hosts.product import Product, spec


def with_a_disk(name: str, number: int, host: Host, **options: Any) -> GuestSpec:
    """Of 64 MiB, empty, on this host."""
    made = spec(name, number, disk=disk_path(name, host.hypervisor), **options)
    make_image(host, made, "64M")
    return made


def moved(product: Product, guest: Guest, to: int, least: int) -> operations_pb2.Operation:
    """With its disk, once its host has said that there are at least so many bytes on it."""
    request = signaling_pb2.RelocateRequest(
        vm_id=guest.spec.uuid, destination=f"h{to}", copy_disks=True, plan_only=True
    )

    def planned() -> signaling_pb2.RelocateResponse:
        return product.control.signaling.Relocate(request, timeout=10)

    def big() -> bool:
        answer = planned()
        return bool(answer.moves) and answer.moves[0].predicted.disk_bytes >= least

    product.until("what is on its disk is known", big, seen=planned)
    request.plan_only = False
    started = product.control.signaling.Relocate(request, timeout=10)
    return product.wait_done(started.operation.operation_id, timeout=90)
