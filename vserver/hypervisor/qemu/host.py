"""The host's own facts and load, from /proc."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from common.errors import Reason, Refusal
from common.model.vm import Resources
from vserver.hypervisor.load import Sample
from vserver.hypervisor.port import HostFacts
from vserver.hypervisor.qemu.launching import BINARY

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


async def facts(acceleration: str) -> HostFacts:
    version = await _version()
    memory = _meminfo()["MemTotal"] // 1024
    capacity = Resources(os.cpu_count() or 1, memory)
    return HostFacts("qemu", f"QEMU {version}", capacity, _cpu_model(), acceleration)


async def _version() -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            BINARY, "--version", stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"cannot run {BINARY}: {error}") from error
    out, _ = await process.communicate()
    found = re.search(r"version (\S+)", out.decode())
    return found[1] if found else "unknown"


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else ""


def sample(at: float, pids: Mapping[str, int]) -> Sample:
    """All counters now; `pids` by VM. A process that has just ended is left out."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    memory = _meminfo()
    vms = {vm_id: counters for vm_id, pid in pids.items() if (counters := _process(pid))}
    return Sample(
        at=at,
        host_busy=(sum(ticks) - idle) * _TICK_NS,
        host_total=sum(ticks) * _TICK_NS,
        memory_total_kib=memory["MemTotal"],
        memory_free_kib=memory["MemAvailable"],
        vms=vms,
    )


def _process(pid: int) -> tuple[int, int] | None:
    """CPU time in nanoseconds and resident KiB."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(stat[11]) + int(stat[12])) * _TICK_NS, int(stat[21]) * _PAGE_KIB


def _meminfo() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
