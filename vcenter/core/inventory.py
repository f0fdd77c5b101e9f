"""What operators declare: tenants, networks, groups, and where an unassigned VM belongs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.errors import Reason, Refusal, Violation, invalid
from common.model.profile import Profile
from common.model.server import Tenant, VirtualNetwork
from common.model.vm import Interface, Vm, VmRecord
from vcenter.core import dispute, indexes, keys
from vcenter.core.command import Decision
from vcenter.core.configuration import claim_conflict, refuse_if_not_enforceable, resolved
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class PutTenant:
    tenant_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        known = view.tenant(self.tenant_id)
        if known is not None:
            return Decision(reply=known)
        tenant = Tenant(self.tenant_id)
        return Decision((Change(keys.tenant(self.tenant_id), tenant),), tenant)


@dataclass(frozen=True, slots=True)
class DeleteTenant:
    tenant_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        if view.tenant(self.tenant_id) is None:
            raise Refusal(Reason.UNKNOWN_TENANT, f"no tenant {self.tenant_id!r}")
        used = sorted(view.find(indexes.of_tenant(self.tenant_id)))
        if used:
            raise _in_use(f"tenant {self.tenant_id!r}", used)
        return Decision((Change(keys.tenant(self.tenant_id), None),))


@dataclass(frozen=True, slots=True)
class PutNetwork:
    network: VirtualNetwork

    def decide(self, view: View, now_ms: int) -> Decision:
        network = replace(self.network, revision=0)
        known = view.network(network.network_id)
        if known is not None and replace(known, revision=0) == network:
            return Decision(reply=known)
        self._check(view, known)
        return Decision((Change(keys.network(network.network_id), network),), network)

    def _check(self, view: View, known: VirtualNetwork | None) -> None:
        network = self.network
        if view.tenant(network.tenant) is None:
            raise Refusal(Reason.UNKNOWN_TENANT, f"no tenant {network.tenant!r}")
        if known is not None and known.tenant != network.tenant:
            raise _in_use(f"network {network.network_id!r}", [f"tenant {known.tenant}"])
        for vni in network.vnis:
            other = view.network_of(vni)
            if other is not None and other.network_id != network.network_id:
                evidence = {"network": other.network_id} if other.tenant == network.tenant else {}
                raise Refusal(Reason.VNI_TAKEN, f"VNI {vni} is taken", evidence=evidence)
        for vni in set(known.vnis if known else ()) - set(network.vnis):
            used = sorted(view.find(indexes.on_vni(vni)))
            if used:
                raise _in_use(f"VNI {vni}", used)


@dataclass(frozen=True, slots=True)
class DeleteNetwork:
    network_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        network = view.network(self.network_id)
        if network is None:
            raise Refusal(Reason.UNKNOWN_NETWORK, f"no network {self.network_id!r}")
        used = sorted({key for vni in network.vnis for key in view.find(indexes.on_vni(vni))})
        if used:
            raise _in_use(f"network {self.network_id!r}", used)
        return Decision((Change(keys.network(self.network_id), None),))


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    tenant: str
    name: str

    def decide(self, view: View, now_ms: int) -> Decision:
        if view.group(self.tenant, self.name) is None:
            raise Refusal(Reason.UNKNOWN_GROUP, f"no group {self.tenant}/{self.name}")
        used = sorted(view.find(indexes.in_group(self.tenant, self.name)))
        if used:
            raise _in_use(f"group {self.tenant}/{self.name}", used)
        return Decision((Change(keys.group(self.tenant, self.name), None),))


@dataclass(frozen=True, slots=True)
class AssignVm:
    """Tenant, group and networks of a VM whose host did not say. Empty fields stay as they are."""

    vm_id: str
    tenant: str = ""
    group: str = ""
    attachments: tuple[Interface, ...] = ()

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        by_mac = {a.mac: a for a in self.attachments}
        strangers = by_mac.keys() - {i.mac for i in record.vm.interfaces}
        if strangers:
            text = f"the VM has no interface {', '.join(sorted(strangers))}"
            raise invalid([Violation("interfaces", text)])
        vm = replace(
            record.vm,
            tenant=self.tenant or record.vm.tenant,
            group=self.group or record.vm.group,
            interfaces=tuple(_attached(i, by_mac.get(i.mac)) for i in record.vm.interfaces),
        )
        return _rewrite(view, record, resolved(view, vm), now_ms)


@dataclass(frozen=True, slots=True)
class SetVmProfile:
    """The VM's own profile; None removes it."""

    vm_id: str
    profile: Profile | None

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        return _rewrite(view, record, replace(record.vm, profile=self.profile), now_ms)


def _attached(interface: Interface, given: Interface | None) -> Interface:
    if given is None:
        return interface
    return replace(
        interface,
        network=given.network or interface.network,
        vni=given.vni or (0 if given.network else interface.vni),
        ips=given.ips or interface.ips,
    )


def _rewrite(view: View, record: VmRecord, vm: Vm, now_ms: int) -> Decision:
    if vm == record.vm:
        return Decision(reply=record)
    if record.operation_id:
        raise Refusal(Reason.ALREADY_MOVING, f"VM {vm.vm_id} is being moved; try again after it")
    refuse_if_not_enforceable(view, vm, view.must_server(record.location.server_id))
    conflict = claim_conflict(view, vm, record.location.server_id, now_ms)
    if conflict is not None:
        return conflict.decision(view, now_ms)
    given = dispute.hands(view, vm, record)
    handed = dispute.passed(view, given, vm.vm_id, record.location.server_id, now_ms)
    if handed.refusal is not None:
        return handed
    rewritten = replace(record, vm=vm, changed_ms=now_ms)
    return Decision((Change(keys.vm(vm.vm_id), rewritten), *handed.changes), rewritten)


def _in_use(what: str, users: list[str]) -> Refusal:
    shown = ", ".join(users[:5]) + (" …" if len(users) > 5 else "")
    return Refusal(Reason.IN_USE, f"{what} is in use by {shown}", evidence={"users": shown})
