"""A real image with something on it, made and looked at with QEMU's own tools."""

from __future__ import annotations

from pathlib import Path

from common.model.disk import Disk
from deploy.lab import shell
from tests.contract.hypervisor_bench import DISK_BYTES

_PATTERN = "-P 7 1M 4M"
_MARKED = "-P 9 8M 64k"
MARK = f"write {_MARKED}"  # in the words of QEMU's `qemu-io`


def make(image: Path, path: str) -> Disk:
    """`path`: what its host calls it."""
    image.parent.mkdir(parents=True, exist_ok=True)
    shell.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(DISK_BYTES)])
    shell.run(["qemu-io", "-c", f"write {_PATTERN}", str(image)])
    return Disk(path, "qcow2", DISK_BYTES, image.stat().st_blocks * 512)


def has_mark(image: Path) -> bool:
    said = shell.run(["qemu-io", "-r", "-U", "-c", f"read {_MARKED}", str(image)], check=False)
    return "failed" not in said and "64 KiB" in said


def has(image: Path) -> bool | None:
    """Also while a guest has it open; None: it is not there."""
    if not image.exists():
        return None
    said = shell.run(["qemu-io", "-r", "-U", "-c", f"read {_PATTERN}", str(image)], check=False)
    return "failed" not in said and "4 MiB" in said
