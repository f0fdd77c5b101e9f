"""How fast a guest writes its memory, by libvirt's dirty page sampling; in worker threads."""

from __future__ import annotations

from typing import Any

import libvirt

from vserver.hypervisor.sampling import MIB, SECONDS

_MEASURED = 2  # VIR_DOMAIN_DIRTYRATE_MEASURED; the binding of some releases has no name for it


def begin(conn: Any, vm_id: str) -> bool:
    """Whether it has begun. Not while a job is under way: libvirt would hold the call until that
    has ended, and a job also holds what arrives here."""
    domain = conn.lookupByUUIDString(vm_id)
    runs = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    if not runs or domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        return False
    domain.startDirtyRateCalc(SECONDS)
    return True


def seen(conn: Any, vm_id: str) -> float | None:
    """Bytes a second of the last sample."""
    domain = conn.lookupByUUIDString(vm_id)
    nowait = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    found = conn.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE, nowait)
    stats: dict[str, Any] = found[0][1] if found else {}
    if stats.get("dirtyrate.calc_status") != _MEASURED:
        return None
    return float(stats["dirtyrate.megabytes_per_second"]) * MIB
