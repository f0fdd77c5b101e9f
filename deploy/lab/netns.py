"""Network namespaces: make, enter, empty and remove them.

A socket belongs for life to the namespace that it was opened in. So a probe needs
no process of its own inside a namespace: open the socket there, use it anywhere.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from deploy.lab import shell

T = TypeVar("T")

_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def create(name: str) -> None:
    """Make a namespace whose loopback is up: libvirt and QEMU both expect one."""
    shell.run(["ip", "netns", "add", name])
    shell.run(["ip", "-n", name, "link", "set", "lo", "up"])


def existing() -> list[str]:
    """All namespaces of this machine that have a name."""
    return sorted(entry.name for entry in _NETNS.iterdir()) if _NETNS.is_dir() else []


def call_in(name: str, function: Callable[[], T]) -> T:
    """Call a function inside a namespace, in a thread that ends with the call.

    Namespaces are entered by thread; one that lives on would carry later work astray.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(_entered, name, function).result()


def _entered(name: str, function: Callable[[], T]) -> T:
    _enter(_NETNS / name)
    return function()


@contextmanager
def entered(name: str) -> Iterator[None]:
    """This thread is inside meanwhile, and so is what it starts; other threads are not."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    _enter(_NETNS / name)
    try:
        yield
    finally:
        _enter(Path(f"/proc/self/fd/{before}"))
        os.close(before)


def _enter(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter namespace {file}")
    finally:
        os.close(fd)


def pids(name: str) -> set[int]:
    """The processes inside. Only the lab puts any there, so these are the lab's own."""
    out = shell.run(["ip", "netns", "pids", name], check=False)
    return {int(word) for word in out.split() if word.isdigit()} - {os.getpid()}


def remove(names: Iterable[str]) -> None:
    """End the processes inside, then remove the namespaces with all links in them."""
    names = list(names)
    _end_processes(names, signal.SIGTERM, patience=2.0)
    _end_processes(names, signal.SIGKILL, patience=5.0)
    for name in names:
        shell.run(["ip", "netns", "del", name], check=False)


def _end_processes(names: list[str], sig: signal.Signals, patience: float) -> None:
    deadline = time.monotonic() + patience
    signalled: set[int] = set()
    while left := set().union(*(pids(name) for name in names)):
        for pid in left - signalled:
            with suppress(ProcessLookupError):
                os.kill(pid, sig)
        signalled |= left
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
