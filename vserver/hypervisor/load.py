"""Load of a host and its VMs, from counters at two moments. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.model.server import ServerStatus
from vserver.hypervisor.port import VmUsage


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at one moment; CPU times in nanoseconds. `disks`: as in `VmUsage`, by VM."""

    at: float
    host_busy: int = 0
    host_total: int = 0
    memory_total_kib: int = 0
    memory_free_kib: int = 0
    vms: dict[str, tuple[int, int]] = field(default_factory=dict)
    disks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)


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
        vm_id: VmUsage(
            _percent(cpu - earlier.vms.get(vm_id, (cpu, 0))[0], elapsed),
            kib // 1024,
            disks=now.disks.get(vm_id, {}),
        )
        for vm_id, (cpu, kib) in now.vms.items()
    }
    off = {i: VmUsage(0.0, 0, disks=sizes) for i, sizes in now.disks.items() if i not in now.vms}
    return status, usage | off


def _percent(part: float, whole: float) -> float:
    return 100.0 * max(part, 0) / whole if whole > 0 else 0.0
