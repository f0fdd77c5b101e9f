"""How a record can be found besides by its key: the tags under which the table files it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from common.model.dispute import Dispute
from common.model.identity import Claim
from common.model.operation import Operation, Phase
from common.model.place import is_abroad
from common.model.server import Alert, Group, Server, Tenant, VirtualNetwork
from common.model.trust import Certificate, Invitation
from common.model.twin import Twin
from common.model.vm import VmRecord
from vcenter.core.keys import Ledgered

Tag: TypeAlias = tuple[str | int, ...]

VMS: Tag = ("vms",)
SERVERS: Tag = ("servers",)
TENANTS: Tag = ("tenants",)
NETWORKS: Tag = ("networks",)
GROUPS: Tag = ("groups",)
OPERATIONS: Tag = ("operations",)
ALERTS: Tag = ("alerts",)
DISPUTES: Tag = ("disputes",)
TWINS: Tag = ("twins",)
ACTIVE: Tag = ("active",)
CARRIED: Tag = ("carried",)  # moves of ours of which another domain's vCenter is to be told
ABROAD: Tag = ("abroad",)  # vServers of other domains, as moves have made them known
CERTIFICATES: Tag = ("certificates",)
INVITATIONS: Tag = ("invitations",)

# First words of the tags that VMs have.
OWNER, VNI, TENANT, GROUP = "owner", "vni", "tenant", "group"
OF_VMS = frozenset({VMS[0], OWNER, VNI, TENANT, GROUP})


def owned_by(server_id: str) -> Tag:
    return (OWNER, server_id)


def on_vni(vni: int) -> Tag:
    return (VNI, vni)


def of_tenant(tenant_id: str) -> Tag:
    return (TENANT, tenant_id)


def in_group(tenant_id: str, name: str) -> Tag:
    return (GROUP, tenant_id, name)


def moving(vm_id: str) -> Tag:
    """Active moves of the VM, a queued one included."""
    return ("moving", vm_id)


def arriving_at(server_id: str) -> Tag:
    """Active moves to the vServer, queued ones included."""
    return ("arriving", server_id)


def moved(vm_id: str) -> Tag:
    """Moves of the VM that succeeded."""
    return ("moved", vm_id)


def went(source: str, destination: str) -> Tag:
    """Moves that succeeded on the way between two vServers, in one direction."""
    return ("went", source, destination)


def lost(vm_id: str) -> Tag:
    """Moves that have lost the VM."""
    return ("lost", vm_id)


def parts_of(operation_id: str) -> Tag:
    return ("parts", operation_id)


def vni_of_network(vni: int) -> Tag:
    return ("network-vni", vni)


def of_identity(identity: str) -> Tag:
    """Certificates and invitations of one."""
    return ("identity", identity)


_ALONE = ((Tenant, TENANTS), (Alert, ALERTS), (Dispute, DISPUTES), (Twin, TWINS))


def tags(record: Ledgered) -> Iterator[Tag]:
    """Every tag of one record, without its claims."""
    if isinstance(record, VmRecord):
        yield from _vm_tags(record)
    elif isinstance(record, Operation):
        yield from _operation_tags(record)
    elif isinstance(record, VirtualNetwork):
        yield NETWORKS
        yield of_tenant(record.tenant)
        for vni in record.vnis:
            yield vni_of_network(vni)
    elif isinstance(record, Group):
        yield GROUPS
        yield of_tenant(record.tenant)
    elif isinstance(record, Server):
        yield ABROAD if is_abroad(record.server_id) else SERVERS
    elif isinstance(record, Certificate | Invitation):
        yield CERTIFICATES if isinstance(record, Certificate) else INVITATIONS
        yield of_identity(record.identity)
    else:
        for kind, tag in _ALONE:
            if isinstance(record, kind):
                yield tag


def _vm_tags(record: VmRecord) -> Iterator[Tag]:
    yield VMS
    yield owned_by(record.location.server_id)
    for vni in record.vm.vnis():
        yield on_vni(vni)
    if record.vm.tenant:
        yield of_tenant(record.vm.tenant)
    if record.vm.group:
        yield in_group(record.vm.tenant, record.vm.group)


def _operation_tags(operation: Operation) -> Iterator[Tag]:
    yield OPERATIONS
    if operation.parent:
        yield parts_of(operation.parent)
    if operation.phase is Phase.LOST_NEEDS_FENCE:
        yield lost(operation.vm_id)
    if operation.phase is Phase.SUCCEEDED and operation.vm_id:
        yield moved(operation.vm_id)
        yield went(operation.source, operation.destination)
    if _is_carried(operation):
        yield CARRIED
    if operation.phase.final:
        return
    yield ACTIVE
    if operation.vm_id:
        yield moving(operation.vm_id)
        yield arriving_at(operation.destination)


def _is_carried(operation: Operation) -> bool:
    """From its turn on, for before that nobody else has heard of it."""
    if operation.told or not is_abroad(operation.destination):
        return False
    return any(entered.phase is Phase.PREPARING for entered in operation.phases)


def claims(record: Ledgered) -> Iterator[Claim]:
    """The addresses that the record alone may hold."""
    if isinstance(record, VmRecord):
        yield from record.vm.claims()
