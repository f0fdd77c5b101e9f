"""5.4, Virtualization Server Lookup: which vServer holds a VM (A16), from memory alone."""

from __future__ import annotations

from common.model.vm import VmKey
from vcenter.core.packed import Kind
from vcenter.core.table import Table
from vcenter.core.view import View


def vm_named(table: Table, key: VmKey) -> str | None:
    """The vm_id that the key stands for. None is an answer, not an error."""
    vm_id = key.vm_id if key.claim is None else table.holder(key.claim)
    return vm_id if vm_id in table.vms.rows else None


def policy_of(view: View, kind: Kind) -> str:
    """The effective profile's hash, the same for all VMs of a kind."""
    return view.profile_over(kind.tenant, kind.group, kind.profile).digest()
