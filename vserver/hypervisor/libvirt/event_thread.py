"""libvirt's event loop, in a thread of its own, one for the whole process.

libvirt has one event implementation per process, registered before the first connection, for
good. `libvirtaio` would put it into asyncio's loop; but libvirt updates its handles from whatever
thread makes a call, which asyncio's loop does not allow, and it binds the process to one loop for
life. libvirt's own implementation is thread-safe, and keeps connections' keepalive going while
our loop is busy: a busy agent must not lose libvirtd. Callbacks cross over by
`call_soon_threadsafe`.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import libvirt

_lock = threading.Lock()
_running: list[threading.Thread] = []


def ensure_running() -> None:
    """Start it if nobody has; it ends with the process."""
    with _lock:
        if _running:
            return
        libvirt.virEventRegisterDefaultImpl()
        # Without this, libvirt prints every error that we handle on stderr too.
        libvirt.registerErrorHandler(lambda *_: None, None)
        thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
        thread.start()
        _running.append(thread)


def _run() -> None:
    """A failing callback is libvirt's to report; the loop itself must outlive it."""
    while True:
        with suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()
