"""Disks of guests, on their hosts alone."""

from pathlib import Path

from deploy.lab import shell
from deploy.lab.guest import GuestSpec
from deploy.lab.host import Host
from deploy.lab.qemu_guest import guests_of

_IMAGES = Path("/var/lib/libvirt/images")


def disk_path(name: str, hypervisor: str) -> str:
    """What the guest's definition calls its disk."""
    return "root.qcow2" if hypervisor == "qemu" else str(_IMAGES / f"{name}.qcow2")


def image_on(host: Host, guest: GuestSpec) -> Path:
    """The disk's file, as it is seen from outside of the host."""
    if host.hypervisor == "qemu":
        return guests_of(host).of(guest.uuid).file(guest.disk)
    return host.work / "lib/images" / Path(guest.disk).name


def make_image(host: Host, guest: GuestSpec, size: str) -> Path:
    """Empty; `size` as qemu-img takes it."""
    image = image_on(host, guest)
    image.parent.mkdir(parents=True, exist_ok=True)
    shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), size])
    return image
