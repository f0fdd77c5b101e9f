"""The host's own facts and load, in worker threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from common.model.server import ServerStatus
from common.model.vm import Resources
from vserver.hypervisor.port import HostFacts, VmUsage

_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
)
# Without NOWAIT, one VM with a job under way would hold up the answer for all.
_ACTIVE = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
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


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at one moment; CPU times in nanoseconds."""

    at: float
    host_busy: int = 0
    host_total: int = 0
    memory_total_kib: int = 0
    memory_free_kib: int = 0
    vms: dict[str, tuple[int, int]] = field(default_factory=dict)


def sample(conn: Any, at: float) -> Sample:
    """All counters; every VM in one call."""
    cpu, memory = conn.getCPUStats(-1), conn.getMemoryStats(-1)
    total = sum(cpu.get(kind, 0) for kind in ("kernel", "user", "idle", "iowait"))
    busy = cpu.get("kernel", 0) + cpu.get("user", 0)
    free = sum(memory.get(kind, 0) for kind in ("free", "buffers", "cached"))
    vms = {
        domain.UUIDString(): (stats.get("cpu.time", 0), _memory_kib(stats))
        for domain, stats in conn.getAllDomainStats(_STATS, _ACTIVE)
    }
    return Sample(at, busy, total, memory.get("total", 0), free, vms)


def load(before: Sample | None, now: Sample) -> tuple[ServerStatus, dict[str, VmUsage]]:
    """What happened between two samples; without an earlier one, no CPU percentage."""
    earlier = before or now
    status = ServerStatus(
        cpu_percent=_percent(
            now.host_busy - earlier.host_busy, now.host_total - earlier.host_total
        ),
        memory_free_mib=now.memory_free_kib // 1024,
        memory_total_mib=now.memory_total_kib // 1024,
    )
    elapsed = (now.at - earlier.at) * 1e9
    usage = {
        vm_id: VmUsage(_percent(cpu - earlier.vms.get(vm_id, (cpu, 0))[0], elapsed), kib // 1024)
        for vm_id, (cpu, kib) in now.vms.items()
    }
    return status, usage


def _memory_kib(stats: dict[str, Any]) -> int:
    """What the process holds; where libvirt does not know, what the guest was given."""
    return int(stats.get("balloon.rss") or stats.get("balloon.current") or 0)


def _percent(part: float, whole: float) -> float:
    return 100.0 * max(part, 0) / whole if whole > 0 else 0.0
