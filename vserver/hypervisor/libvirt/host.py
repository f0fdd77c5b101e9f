"""The host's own facts and load, in worker threads."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from common.model.vm import Resources
from vserver.hypervisor.load import Sample
from vserver.hypervisor.port import HostFacts

_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
# Without NOWAIT, one VM with a job under way would hold up the answer for all.
_ACTIVE = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)
_OFF = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


def read_facts(conn: Any, acceleration: str) -> HostFacts:
    """Slow the first time: libvirtd asks every QEMU binary what it can do."""
    _model, memory_mib, cpus, *_ = conn.getInfo()
    cpu = ET.fromstring(conn.getCapabilities()).findtext("host/cpu/model", "")
    version = f"QEMU {_dotted(conn.getVersion())}, libvirt {_dotted(conn.getLibVersion())}"
    return HostFacts("libvirt", version, Resources(cpus, memory_mib), cpu, acceleration)


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def sample(conn: Any, at: float) -> Sample:
    """All counters; every VM in one call."""
    cpu, memory = conn.getCPUStats(-1), conn.getMemoryStats(-1)
    total = sum(cpu.get(kind, 0) for kind in ("kernel", "user", "idle", "iowait"))
    busy = cpu.get("kernel", 0) + cpu.get("user", 0)
    free = sum(memory.get(kind, 0) for kind in ("free", "buffers", "cached"))
    found = {
        domain.UUIDString(): stats for domain, stats in conn.getAllDomainStats(_STATS, _ACTIVE)
    }
    off = conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BLOCK, _OFF)
    vms = {i: (stats.get("cpu.time", 0), _memory_kib(stats)) for i, stats in found.items()}
    found.update((domain.UUIDString(), stats) for domain, stats in off)
    disks = {i: _disks(stats) for i, stats in found.items()}
    return Sample(at, busy, total, memory.get("total", 0), free, vms, disks)


def _disks(stats: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What each file holds, and takes of the host's storage; a job under way may hide that."""
    count = int(stats.get("block.count", 0))
    known = [(stats.get(f"block.{n}.path"), stats.get(f"block.{n}.capacity")) for n in range(count)]
    return {
        path: (int(capacity), int(stats.get(f"block.{n}.physical", capacity)))
        for n, (path, capacity) in enumerate(known)
        if path and capacity
    }


def _memory_kib(stats: dict[str, Any]) -> int:
    """What the process holds; where libvirt does not know, what the guest was given."""
    return int(stats.get("balloon.rss") or stats.get("balloon.current") or 0)
