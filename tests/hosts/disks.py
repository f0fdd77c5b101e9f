"""Guests whose disks are on their hosts alone."""

from pathlib import Path
from typing import Any

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from deploy.lab import Guest, GuestSpec, Host, shell
from deploy.lab.qemu_guest import guests_of
from tests.hosts.product import Product, spec

_IMAGES = Path("/var/lib/libvirt/images")


def with_a_disk(name: str, number: int, host: Host, **options: Any) -> GuestSpec:
    """Of 64 MiB, empty, on this host."""
    path = "root.qcow2" if host.hypervisor == "qemu" else str(_IMAGES / f"{name}.qcow2")
    made = spec(name, number, disk=path, **options)
    image = image_on(host, made)
    image.parent.mkdir(parents=True, exist_ok=True)
    shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"])
    return made


def image_on(host: Host, guest: GuestSpec) -> Path:
    """The disk's file, as it is seen from outside of the host."""
    if host.hypervisor == "qemu":
        return guests_of(host).of(guest.uuid).file(guest.disk)
    return host.work / "lib/images" / Path(guest.disk).name


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
