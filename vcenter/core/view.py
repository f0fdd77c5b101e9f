"""Reading the ledger: the same questions to the durable table and to what is being decided."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from common.errors import Reason, Refusal
from common.model.dispute import Dispute
from common.model.identity import Claim
from common.model.operation import Operation, Phase
from common.model.profile import Profile, effective
from common.model.server import Group, Server, Tenant, VirtualNetwork
from common.model.telling import Telling
from common.model.trust import Certificate, Invitation
from common.model.twin import Twin
from common.model.vm import Tombstone, Vm, VmKey, VmRecord
from vcenter.core import indexes, keys
from vcenter.core.indexes import Tag
from vcenter.core.keys import Ledgered

R = TypeVar("R", bound=Ledgered)
Shape: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class FreezeLimits:
    """An identity that changes hands so often in so many milliseconds is frozen."""

    turns: int = 5
    within_ms: int = 180_000


class View(ABC):
    """Four primitives; everything else is said in their terms."""

    limits: FreezeLimits

    @abstractmethod
    def get(self, key: str) -> Ledgered | None: ...

    @abstractmethod
    def holder(self, claim: Claim) -> str | None:
        """The vm_id that holds the claim."""

    @abstractmethod
    def knows(self, vm_id: str, claims: Iterable[tuple[int, int]]) -> bool:
        """Whether there is anything at all about the VM (it may be a tombstone), or a holder of one
        of the claims: (VNI, address number). May say so of what has only just gone."""

    @abstractmethod
    def find(self, tag: Tag) -> Iterable[str]:
        """Keys of the records filed under the tag, in no order."""

    @abstractmethod
    def owners_on(self, vni: int) -> Iterable[str]:
        """The vServers that own a VM of this VNI, each once."""

    def sound(self) -> set[Shape]:
        """What was found to fit together (a tenant, its group, networks with their VNIs), as long
        as the view remembers it; to be added to. Most VMs of a group are of one shape."""
        return set()

    # ---- one record ----

    def _typed(self, kind: type[R], key: str) -> R | None:
        record = self.get(key)
        return record if isinstance(record, kind) else None

    def vm(self, vm_id: str) -> VmRecord | None:
        return self._typed(VmRecord, keys.vm(vm_id))

    def tombstone(self, vm_id: str) -> Tombstone | None:
        return self._typed(Tombstone, keys.gone(vm_id))

    def server(self, server_id: str) -> Server | None:
        return self._typed(Server, keys.server(server_id))

    def tenant(self, tenant_id: str) -> Tenant | None:
        return self._typed(Tenant, keys.tenant(tenant_id))

    def network(self, network_id: str) -> VirtualNetwork | None:
        return self._typed(VirtualNetwork, keys.network(network_id))

    def group(self, tenant_id: str, name: str) -> Group | None:
        return self._typed(Group, keys.group(tenant_id, name))

    def operation(self, operation_id: str) -> Operation | None:
        return self._typed(Operation, keys.operation(operation_id))

    def certificate(self, serial: str) -> Certificate | None:
        return self._typed(Certificate, keys.certificate(serial))

    def invitation(self, invitation_id: str) -> Invitation | None:
        return self._typed(Invitation, keys.invitation(invitation_id))

    def dispute(self, identity: str) -> Dispute | None:
        return self._typed(Dispute, keys.dispute(identity))

    def telling(self, domain: str) -> Telling | None:
        return self._typed(Telling, keys.telling(domain))

    def twin(self, identity: str) -> Twin | None:
        return self._typed(Twin, keys.twin(identity))

    # ---- several ----

    def all(self, kind: type[R], tag: Tag) -> Iterator[R]:
        """Records of one kind under a tag, in key order, so that answers are repeatable."""
        for key in sorted(self.find(tag)):
            record = self.get(key)
            if isinstance(record, kind):
                yield record

    def network_of(self, vni: int) -> VirtualNetwork | None:
        return next(self.all(VirtualNetwork, indexes.vni_of_network(vni)), None)

    def has_disputes(self) -> bool:
        return next(iter(self.find(indexes.DISPUTES)), None) is not None

    def has_twins(self) -> bool:
        return next(iter(self.find(indexes.TWINS)), None) is not None

    # ---- what follows from records ----

    def by_key(self, key: VmKey) -> VmRecord | None:
        vm_id = key.vm_id if key.claim is None else self.holder(key.claim)
        return self.vm(vm_id) if vm_id else None

    def move_of(self, record: VmRecord) -> Operation | None:
        """The move that is under way for a VM."""
        return self.operation(record.operation_id) if record.operation_id else None

    def work_on(self, record: VmRecord) -> Operation | None:
        """The move that is under way for a VM, or else its standby."""
        if record.operation_id:
            return self.operation(record.operation_id)
        return self.standby_of(record.vm.vm_id)

    def standby_of(self, vm_id: str) -> Operation | None:
        """The standby that has had its turn."""
        moves = self.all(Operation, indexes.moving(vm_id))
        return next((m for m in moves if m.apart and m.phase is not Phase.QUEUED), None)

    def profile_of(self, vm: Vm) -> Profile:
        """Effective: the VM's own over its group's."""
        return self.profile_over(vm.tenant, vm.group, vm.profile)

    def profile_over(self, tenant: str, group_name: str, own: Profile | None) -> Profile:
        """What is said of one VM, or of a kind of VMs, over what its group says."""
        group = self.group(tenant, group_name) if group_name else None
        return effective(own, group.profile if group else None)

    # ---- or a refusal ----

    def must_vm(self, vm_id: str) -> VmRecord:
        record = self.vm(vm_id)
        if record is None:
            raise Refusal(Reason.UNKNOWN_VM, f"no VM {vm_id} is registered")
        return record

    def must_server(self, server_id: str) -> Server:
        server = self.server(server_id)
        if server is None:
            raise Refusal(Reason.UNKNOWN_SERVER, f"no vServer {server_id!r} has ever attached")
        return server

    def must_operation(self, operation_id: str) -> Operation:
        operation = self.operation(operation_id)
        if operation is None:
            raise Refusal(Reason.UNKNOWN_OPERATION, f"no operation {operation_id}")
        return operation
