"""What a confined caller sees: a tenant's own, or one network's. The rest does not exist for it.

What others have is answered exactly as what nobody has: the same words, decided before anything is
read that only the others' things would make slow.
"""

from __future__ import annotations

from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.operation import Operation
from common.model.server import Group, Server, Tenant, VirtualNetwork
from common.model.vm import Resources, Vm, VmKey, VmRecord
from vcenter.core.keys import Ledgered
from vcenter.core.packed import PLACE, Kind
from vcenter.core.table import Table
from vcenter.core.view import View

# What these say of hosts adds up from everybody's VMs; a tenant hears the reason alone.
_OF_HOSTS = frozenset(
    {
        Reason.NO_CAPACITY,
        Reason.NO_DESTINATION,
        Reason.INCOMPATIBLE_HOST,
        Reason.SERVER_SILENT,
        Reason.NOT_ENFORCEABLE,
        Reason.UNKNOWN_SERVER,
        Reason.CORDONED,
        Reason.IN_TWO_DOMAINS,
    }
)
_NO_ROW = PLACE.pack(0, 0)  # kinds are numbered from 1
_NO_KIND = Kind("", "", Resources(), None, (), ("",))
_NAMES = frozenset(reason.name for reason in _OF_HOSTS)


def sees(view: View, caller: Caller, record: Ledgered) -> bool:
    """Whether the record exists as far as the caller is concerned."""
    if not caller.confined:
        return True
    if isinstance(record, VmRecord):
        return sees_vm(caller, record.vm)
    if isinstance(record, Server):
        return bool(caller.tenants)  # whoever follows VMs must know where they are
    if isinstance(record, Operation):
        if not record.vm_id:
            return bool(caller.tenant) and record.subject.startswith(f"{caller.tenant}/")
        moved, grave = view.vm(record.vm_id), view.tombstone(record.vm_id)
        last = moved if moved is not None or grave is None else grave.last
        return last is not None and sees_vm(caller, last.vm)
    if isinstance(record, VirtualNetwork):
        return _is_of(caller, record.tenant) or caller.network == record.network_id
    if isinstance(record, Group):
        return _is_of(caller, record.tenant)
    return isinstance(record, Tenant) and _is_of(caller, record.tenant_id)


def _is_of(caller: Caller, tenant: str) -> bool:
    """Of a tenant that the caller is, or that a neighbour may hear of."""
    return bool(tenant) and (caller.tenant == tenant or tenant in (caller.tenants or ()))


def sees_vm(caller: Caller, vm: Vm) -> bool:
    if caller.tenants is not None:
        return vm.tenant in caller.tenants
    if caller.tenant:
        return vm.tenant == caller.tenant
    return not caller.network or any(i.network == caller.network for i in vm.interfaces)


def find_vm(table: Table, caller: Caller, key: VmKey) -> VmRecord | None:
    """None: there is none that the caller sees. Of a VM that it does not see no record is put
    together."""
    return table.vm(find_id(table, caller, key) or "")


def find_id(table: Table, caller: Caller, key: VmKey) -> str | None:
    """None: there is none that the caller sees. In a VNI that is not its own no address is looked
    up."""
    vm_id: str | None = key.vm_id
    if key.claim is not None:
        vm_id = table.holder(key.claim) if _sees_vni(table, caller, key.claim.vni) else None
    if not caller.confined:  # sees whatever there is
        return vm_id if vm_id in table.vms.rows else None
    row = table.vms.rows.get(vm_id or "", _NO_ROW)
    kind = table.vms.kinds.get(PLACE.unpack_from(row)[0], _NO_KIND)
    seen = sees_kind(caller, kind)  # asked of nothing as of another's: it takes as long
    return vm_id if seen and kind is not _NO_KIND else None


def _sees_vni(table: Table, caller: Caller, vni: int) -> bool:
    if not caller.confined:
        return True
    network = table.network_of(vni)
    return network is not None and sees(table, caller, network)


def sees_kind(caller: Caller, kind: Kind) -> bool:
    """As `sees_vm`, of a VM that has not been unpacked."""
    if caller.tenants is not None:
        return kind.tenant in caller.tenants
    if caller.tenant:
        return kind.tenant == caller.tenant
    return not caller.network or caller.network in kind.networks


def check_vm(table: Table, caller: Caller, vm_id: str) -> None:
    """Raises `Refusal(UNKNOWN_VM)`, in the words of `View.must_vm`."""
    if find_vm(table, caller, VmKey(vm_id)) is None:
        raise Refusal(Reason.UNKNOWN_VM, f"no VM {vm_id} is registered")


def must_operation(view: View, caller: Caller, operation_id: str) -> Operation:
    operation = view.operation(operation_id)
    if operation is None or not sees(view, caller, operation):
        raise Refusal(Reason.UNKNOWN_OPERATION, f"no operation {operation_id}")
    return operation


def had_vm(table: Table, caller: Caller, key: VmKey) -> bool:
    """Whether the past may be read for it: the VM is the caller's, or was when it ended."""
    if key.claim is not None or not caller.confined:
        return key.claim is None or _sees_vni(table, caller, key.claim.vni)
    grave = table.tombstone(key.vm_id)
    return find_vm(table, caller, key) is not None or (
        grave is not None and sees_vm(caller, grave.last.vm)
    )


def told(caller: Caller, refusal: Refusal) -> Refusal:
    """The refusal as this caller may hear it. Its evidence may be other refusals: `2.REASON`."""
    others = {name.rpartition(".")[2] for name in refusal.evidence}
    if not caller.confined or (refusal.reason not in _OF_HOSTS and not others & _NAMES):
        return refusal
    return Refusal(refusal.reason, refusal.reason.explanation, retry_after=refusal.retry_after)
