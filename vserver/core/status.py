"""What a host reports of its VMs (draft 5.7): state, usage, and the policy that is in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from common.model.disk import Disk
from common.model.server import VmStatus
from common.model.vm import VmState
from common.model.wanted import WantedVm
from vserver.core.ports import ports_of
from vserver.core.readback import policy_in_force
from vserver.hypervisor.port import HostedVm, VmUsage
from vserver.network.port import Observed

_NO_USAGE = VmUsage(0.0, 0)


def vm_status(
    hosted: HostedVm,
    wanted: WantedVm | None,
    epoch: int,
    observed: Observed,
    usage: VmUsage | None,
    problems: Mapping[str, str],
    refused: str,
) -> VmStatus:
    """`problems`: by device; `refused`: why the vCenter did not take the VM's registration."""
    usage = usage or _NO_USAGE
    return VmStatus(
        vm_id=hosted.vm.vm_id,
        epoch=epoch,
        state=hosted.state,
        cpu_percent=usage.cpu_percent if hosted.state is VmState.RUNNING else 0.0,
        memory_used_mib=usage.memory_used_mib,
        applied_hash=_applied(hosted, wanted, observed),
        port_problem=_problem(hosted, problems, refused),
        dirty_bytes_per_second=usage.dirty_bytes_per_second,
        disks=tuple(_sized(disk, usage) for disk in hosted.disks),
    )


def _sized(disk: Disk, usage: VmUsage) -> Disk:
    size, used = usage.disks.get(disk.path, (0, 0))
    return replace(disk, bytes=size, used=used)


def _applied(hosted: HostedVm, wanted: WantedVm | None, observed: Observed) -> str:
    """ "" unless every port of the VM is open with its profile in force."""
    ports = ports_of(wanted, hosted) if wanted is not None else []
    if not ports or not all(port.is_open for port in ports):
        return ""
    return policy_in_force(ports, observed.ports)


def _problem(hosted: HostedVm, problems: Mapping[str, str], refused: str) -> str:
    """The data plane's own words first: they are about this port, here and now."""
    on_taps = [problems[tap.device] for tap in hosted.taps if tap.device in problems]
    return next((text for text in [*on_taps, refused, hosted.problem] if text), "")
