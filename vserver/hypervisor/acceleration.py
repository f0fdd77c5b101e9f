"""Whether KVM runs a guest here: found out by booting one, for the device alone proves nothing.

A nested or micro virtual machine may offer /dev/kvm and libvirt may list `kvm`, and still a guest
aborts on a register or hangs after its firmware. So the host's own kernel is booted without a
disk until it speaks; what does not speak in time counts as "tcg".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from common.clock import Clock

_SPOKEN = b"Kernel panic"  # it ran up to where it misses its root file system
_PATIENCE = 8.0
_QEMU = "qemu-system-x86_64 -M q35 -accel kvm -cpu qemu64 -m 256 -nodefaults -display none"
_QEMU += " -no-reboot -serial stdio"


async def probe(
    clock: Clock,
    *,
    device: Path = Path("/dev/kvm"),
    kernels: Path = Path("/boot"),
    patience: float = _PATIENCE,
) -> str:
    """`kvm` where a Linux guest was seen running by it, else `tcg`. Takes seconds: ask once."""
    found = await asyncio.to_thread(_kernel, device, kernels)
    if found is None:
        return "tcg"
    argv = [*_QEMU.split(), "-kernel", str(found), "-append", "console=ttyS0 panic=-1"]
    return "kvm" if await _says(argv, _SPOKEN, clock, patience) else "tcg"


def _kernel(device: Path, kernels: Path) -> Path | None:
    """The newest kernel that we may read, if there is any reason to try."""
    if not os.access(device, os.R_OK | os.W_OK):
        return None
    readable = (file for file in kernels.glob("vmlinuz*") if os.access(file, os.R_OK))
    return max(readable, key=lambda file: file.stat().st_mtime, default=None)


async def _says(argv: Sequence[str], word: bytes, clock: Clock, patience: float) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    assert process.stdout is not None
    reading = asyncio.ensure_future(_read_until(process.stdout, word))
    timer = asyncio.ensure_future(clock.sleep(patience))
    try:
        await asyncio.wait({reading, timer}, return_when=asyncio.FIRST_COMPLETED)
        return reading.done() and reading.result()
    finally:
        timer.cancel()
        reading.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _read_until(stream: asyncio.StreamReader, word: bytes) -> bool:
    seen = b""
    while piece := await stream.read(4096):
        seen = seen[-len(word) :] + piece
        if word in seen:
            return True
    return False
