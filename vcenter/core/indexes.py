"""How a record can be found besides by its key: the tags under which the table files it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from common.model.identity import Claim
from common.model.operation import Operation
from common.model.server import Alert, Group, Server, Tenant, VirtualNetwork
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
ACTIVE: Tag = ("active",)

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


def vni_of_network(vni: int) -> Tag:
    return ("network-vni", vni)


def tags(record: Ledgered) -> Iterator[Tag]:
    """Every tag of one record, without its claims."""
    if isinstance(record, VmRecord):
        yield from _vm_tags(record)
    elif isinstance(record, Operation):
        yield OPERATIONS
        if not record.phase.final:
            yield ACTIVE
    elif isinstance(record, VirtualNetwork):
        yield NETWORKS
        yield of_tenant(record.tenant)
        for vni in record.vnis:
            yield vni_of_network(vni)
    elif isinstance(record, Group):
        yield GROUPS
        yield of_tenant(record.tenant)
    else:
        for kind, tag in ((Server, SERVERS), (Tenant, TENANTS), (Alert, ALERTS)):
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


def claims(record: Ledgered) -> Iterator[Claim]:
    """The addresses that the record alone may hold."""
    if isinstance(record, VmRecord):
        yield from record.vm.claims()
