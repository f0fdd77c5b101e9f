"""The host's certificate where QEMU looks for it when memory travels.

QEMU reads these files at the beginning of every copy, so that a renewed certificate is used from
the next one on.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.tls import Bundle

# The group ffdhe2048 of RFC 7919, A.1. Where QEMU finds none, it searches for a prime of its own at
# the beginning of every copy that comes in: 0.1 to 1 s of CPU, for what TLS 1.3 then does not use.
_DH_PARAMETERS = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def publish(bundle: Bundle, folder: Path) -> None:
    """Raises OSError. A folder that hands its group on (mode 2750) lets QEMU read the key."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    _write(folder / "ca-cert.pem", bundle.ca)
    _write(folder / "dh-params.pem", _DH_PARAMETERS)
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
