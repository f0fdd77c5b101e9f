"""The guest image: Debian's cloud kernel and a busybox initramfs, about 1.2 MB.

Nothing is installed: the kernel package is downloaded, unpacked and cached under a
name that depends on the recipe, so that a changed recipe makes a new image.
"""

import gzip
import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import shell
from deploy.lab.names import CACHE

_META_PACKAGE = "linux-image-cloud-amd64"
_MODULES = ("virtio_pci", "virtio_net", "virtio_blk")
_BUSYBOX = Path("/bin/busybox")
_INIT = Path(__file__).with_name("guest-init.sh")


@dataclass(frozen=True)
class Image:
    """What a guest boots."""

    kernel: Path
    initrd: Path


def ensure() -> Image:
    """The cached image, built first where there is none."""
    home = CACHE / "guest" / _recipe_digest()
    if not home.exists():
        _build(home)
    return Image(home / "vmlinuz", home / "initrd.gz")


def _recipe_digest() -> str:
    recipe = _INIT.read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(recipe).hexdigest()[:12]


def _build(home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="build-") as scratch:
        unpacked = _unpack_kernel(Path(scratch))
        ready = Path(scratch) / "ready"
        ready.mkdir()
        shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), ready / "vmlinuz")
        tree = _initramfs_tree(Path(scratch), unpacked)
        (ready / "initrd.gz").write_bytes(_pack(tree))
        _publish(ready, home)


def _publish(ready: Path, home: Path) -> None:
    """Rename into place: whoever builds at the same time sees a whole image or none."""
    try:
        ready.rename(home)
    except OSError:
        if not home.exists():
            raise


def _unpack_kernel(scratch: Path) -> Path:
    depends = shell.run(["apt-cache", "depends", _META_PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise RuntimeError(f"{_META_PACKAGE} names no kernel; run apt-get update first")
    script = 'cd "$1" && apt-get download -q "$2" && dpkg -x ./*.deb unpacked'
    shell.run(["sh", "-c", script, "sh", str(scratch), found[1]], timeout=600)
    return scratch / "unpacked"


def _initramfs_tree(scratch: Path, unpacked: Path) -> Path:
    tree = scratch / "tree"
    for directory in ("bin", "modules", "proc", "sys", "dev"):
        (tree / directory).mkdir(parents=True)
    shutil.copy(_BUSYBOX, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    shutil.copy(_INIT, tree / "init")
    (tree / "init").chmod(0o755)
    modules = _modules_in_order(unpacked)
    for module in modules:
        shutil.copy(module, tree / "modules")
    (tree / "modules/order").write_text("\n".join(m.name for m in modules) + "\n")
    return tree


def _modules_in_order(unpacked: Path) -> list[Path]:
    """The modules and what they need, each after its dependencies, each once."""
    release = next(unpacked.glob("lib/modules/*")).name
    base = str(unpacked)
    shell.run(["depmod", "-b", base, release])
    order: dict[Path, None] = {}
    for module in _MODULES:
        out = shell.run(["modprobe", "-d", base, "-S", release, "--show-depends", module])
        order.update((Path(path), None) for path in re.findall(r"^insmod (\S+)", out, re.M))
    return list(order)


def _pack(tree: Path) -> bytes:
    archive = tree.parent / "initrd.cpio"
    script = 'cd "$1" && find . | cpio --quiet -o -H newc -R 0:0 > "$2"'
    shell.run(["sh", "-c", script, "sh", str(tree), str(archive)])
    return gzip.compress(archive.read_bytes(), 6)
