"""Hosts, tenants, networks, groups, alerts: what a domain consists of besides its VMs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from common.model.disk import Disk
from common.model.profile import Capability, Profile
from common.model.vm import Resources, VmState


class Liveness(StrEnum):
    """SILENT means that nothing is known; a lease that lapsed is not a fence (I7)."""

    ATTACHED = "attached"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Degrees, WGS 84."""

    latitude: float
    longitude: float


def is_on_earth(place: Coordinates) -> bool:
    """Not, for one, where a number is NaN."""
    return abs(place.latitude) <= 90 and abs(place.longitude) <= 180


@dataclass(frozen=True, slots=True)
class Server:
    """A vServer (draft 4.1, 4.2): what its agent says of it, and whether it can be reached.

    `cordoned` is the operator's word: no VM is placed there. `fenced_ms`: since then it is known to
    run nothing; 0 once its agent has attached again. `keeps_standbys`: it mirrors disks, and takes
    those of others; `carries_disks`: likewise of VMs that are off.
    """

    server_id: str
    name: str = ""
    management_address: str = ""
    vtep_address: str = ""
    site: str = ""
    capacity: Resources = Resources()
    hypervisor: str = ""
    cpu_model: str = ""
    capabilities: frozenset[Capability] = frozenset()
    migration_uri: str = ""
    mac_address: str = ""
    coordinates: Coordinates | None = None
    cordoned: bool = False
    fenced_ms: int = 0
    liveness: Liveness = Liveness.SILENT
    last_seen_ms: int = 0
    keeps_standbys: bool = False
    carries_disks: bool = False
    attached_to: str = ""  # the vCenter replica, where there are several
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    """Belongs to one tenant; a VNI belongs to one virtual network."""

    network_id: str
    tenant: str
    vnis: tuple[int, ...]
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A tenant's VMs that share a profile (draft 3.4). `anti_affinity`: each on another vServer."""

    tenant: str
    name: str
    profile: Profile | None = None
    anti_affinity: bool = False
    revision: int = 0


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should look at; `reason` is one of `common.errors.Reason`."""

    alert_id: str
    reason: str
    message: str
    severity: Severity
    raised_ms: int
    vm_id: str = ""
    server_id: str = ""
    evidence: tuple[tuple[str, str], ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A host's load at its last report."""

    cpu_percent: float = 0.0
    memory_free_mib: int = 0
    memory_total_mib: int = 0


@dataclass(frozen=True, slots=True)
class VmStatus:
    """A VM at its host's last report. `applied_hash` "" means that its ports are closed;
    `dirty_bytes_per_second` None, that nobody has looked how fast its guest writes; `disks` None,
    that its disks are not known."""

    vm_id: str
    epoch: int
    state: VmState
    cpu_percent: float = 0.0
    memory_used_mib: int = 0
    applied_hash: str = ""
    port_problem: str = ""
    dirty_bytes_per_second: float | None = None
    disks: tuple[Disk, ...] | None = None
