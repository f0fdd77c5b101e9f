"""`python -m tests.support.unprivileged CONFIG CAPABILITY…`, as root: an agent that is nobody, with
these capabilities (their numbers) and no more, whose `memory` host has VMs 1 and 2 of tenant blue.

Everything is imported before the privileges are dropped: the interpreter may lie where nobody else
may read.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - asyncio imports it when it is first needed
import ctypes
import os
import struct
import sys
from functools import partial
from pathlib import Path

from common import log
from common.cli import load_or_exit
from common.clock import SystemClock
from common.lifecycle import Daemon, run
from common.model.vm import Interface, Resources, Vm
from tests.support.nouns import ip, mac, vm_id
from vserver.adaptors import parts
from vserver.app import Agent
from vserver.config import AgentConfig
from vserver.hypervisor.memory import MemoryHypervisor
from vserver.network import linux, memory  # noqa: F401 - see above

NOBODY = 65534
_KEEPCAPS, _DROP_BOUND, _NO_NEW_PRIVS, _AMBIENT, _RAISE = 8, 24, 38, 47, 2
_LAST = 63
_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def become_nobody(capabilities: list[int]) -> None:
    """For good, and for whatever is started from here: those are *ambient*."""
    for number in range(_LAST + 1):
        if number not in capabilities:
            _libc.prctl(_DROP_BOUND, number, 0, 0, 0)  # those that this kernel has
    _libc.prctl(_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    low = sum(1 << number for number in capabilities)
    header, data = struct.pack("<Ii", _VERSION_3, 0), struct.pack("<6I", low, low, low, 0, 0, 0)
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
    for number in capabilities:
        if _libc.prctl(_AMBIENT, _RAISE, number, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)


def a_vm(number: int) -> Vm:
    interface = Interface(mac(number), (ip(number),), "blue-net", 100)
    name, resources = f"vm-{number}", Resources(1, 512)
    return Vm(vm_id(number), name, "blue", "", (interface,), None, resources)


async def _serve(config: AgentConfig, daemon: Daemon) -> None:
    made = parts(config, SystemClock())
    assert isinstance(made.hypervisor, MemoryHypervisor)
    for number in (1, 2):
        made.hypervisor.create(a_vm(number))
    await Agent(config, made).run(daemon.stopping, daemon.ready)


def main() -> None:
    config = load_or_exit(Path(sys.argv[1]), AgentConfig)
    become_nobody([int(word) for word in sys.argv[2:]])
    log.configure(config.log)
    sys.exit(run(partial(_serve, config)))


if __name__ == "__main__":
    main()
