"""Which accelerator really runs a guest here: found out by booting one.

A machine may offer /dev/kvm and yet hang after the firmware or abort on a register
(nested and micro virtual machines do), so the device alone proves nothing.
"""

import os
import subprocess
import time
from functools import cache
from pathlib import Path

from deploy.lab import image
from deploy.lab.names import CACHE

_PATIENCE = 4.0  # KVM boots the guest in well under a second
_READY = b"vs-guest-ready"


@cache
def domain_type() -> str:
    """libvirt's domain type, `kvm` or `qemu`; asked of the machine once per its boot."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = CACHE / "accel" / boot_id
    if not known.exists():
        found = "kvm" if _kvm_boots() else "qemu"
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(found)
    return known.read_text()


def _kvm_boots() -> bool:
    if not Path("/dev/kvm").exists():
        return False
    system = image.ensure()
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "qemu64", "-m", "128"]
    argv += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    argv += ["-kernel", str(system.kernel), "-initrd", str(system.initrd)]
    argv += ["-append", "console=ttyS0 quiet vs.name=probe"]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        return _says_ready(process)
    finally:
        process.kill()
        process.communicate()


def _says_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    deadline = time.monotonic() + _PATIENCE
    seen = b""
    while time.monotonic() < deadline and process.poll() is None:
        seen += process.stdout.read() or b""
        if _READY in seen:
            return True
        time.sleep(0.05)
    return False
