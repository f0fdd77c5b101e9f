"""A VM, where it is, and what the ledger holds of it (draft 3.1, 3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from common.model.identity import Claim
from common.model.profile import Profile
from common.model.value import value


class VmState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut-off"
    INCOMING = "incoming"
    LOST_NEEDS_FENCE = "lost-needs-fence"


@value
class Interface:
    """One MAC, 0..n IPs, one virtual network ("" = unknown), one VNI (0 = unknown)."""

    mac: str
    ips: tuple[str, ...] = ()
    network: str = ""
    vni: int = 0


@value
class Resources:
    """Entitlements of a VM, or the capacity of a host."""

    vcpus: int = 0
    memory_mib: int = 0


@value
class Vm:
    """Identity and configuration. `tenant` "" means unassigned: its ports stay closed."""

    vm_id: str
    name: str = ""
    tenant: str = ""
    group: str = ""
    interfaces: tuple[Interface, ...] = ()
    profile: Profile | None = None
    resources: Resources = Resources()

    def claims(self) -> Iterator[Claim]:
        """The addresses that this VM alone may hold, inside their VNIs."""
        for interface in self.interfaces:
            if interface.vni:
                yield Claim(interface.vni, interface.mac)
                for ip in interface.ips:
                    yield Claim(interface.vni, ip)

    @property
    def assigned(self) -> bool:
        """Tenant and every interface's VNI are known."""
        return bool(self.tenant) and all(i.vni for i in self.interfaces)

    def vnis(self) -> frozenset[int]:
        return frozenset(i.vni for i in self.interfaces if i.vni)


@value
class Location:
    """Owner, state, and the fencing token that grows by one with every change of owner."""

    server_id: str
    state: VmState
    epoch: int


@value
class VmRecord:
    """The ledger's entry. `revision` is the store's, filled in when the entry is durable."""

    vm: Vm
    location: Location
    changed_ms: int
    operation_id: str = ""
    revision: int = 0

    def at(self, revision: int) -> VmRecord:
        """The same, as of this revision."""
        return VmRecord(self.vm, self.location, self.changed_ms, self.operation_id, revision)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of a VM that was deregistered: its epoch, so that it never goes back (I3).

    `last` is its record at the end: a VM that returns has what the operator had given it.
    """

    vm_id: str
    epoch: int
    changed_ms: int
    last: VmRecord
    revision: int = 0


@value
class VmKey:
    """One of three ways to name a VM: by `vm_id`, or by a claim."""

    vm_id: str = ""
    claim: Claim | None = None
