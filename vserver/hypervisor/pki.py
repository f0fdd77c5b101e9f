"""The host's certificate where QEMU looks for it when memory travels.

QEMU reads these files at the beginning of every copy, so that a renewed certificate is used from
the next one on.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.tls import Bundle


def publish(bundle: Bundle, folder: Path) -> None:
    """Raises OSError. A folder that hands its group on (mode 2750) lets QEMU read the key."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    _write(folder / "ca-cert.pem", bundle.ca)
    for end in ("server", "client"):  # QEMU's names for the two ends of a copy
        _write(folder / f"{end}-key.pem", bundle.key)
        _write(folder / f"{end}-cert.pem", bundle.chain)


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, 0o640)
    scratch.replace(path)
