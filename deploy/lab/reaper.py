"""The part of a host's init that QEMU and libvirt rely on: collecting the dead at once.

`python -m deploy.lab.reaper LOG COMMAND ...` starts a command in the background and
adopts whatever it leaves behind. libvirt takes a guest for stopped only when its
process is gone, zombie included; a container's init may take seconds to collect one,
and every move in the lab would look that much slower than on a real host.
"""

import ctypes
import os
import sys
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36


def main(log: str, command: list[str]) -> None:
    """Return at once; the daemon behind ends with its last descendant."""
    if os.fork():
        return
    os.setsid()
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("cannot adopt orphans")
    _redirect(log)
    os.posix_spawnp(command[0], command, os.environ)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _redirect(log: str) -> None:
    """Let go of the caller's pipes, or it would wait for this daemon to end."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, to in enumerate((nothing, out, out)):
        os.dup2(to, stream)
    os.close(nothing)
    os.close(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
