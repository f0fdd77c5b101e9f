"""What a VM is configured as: the host's word over the operator's, checked against the ledger."""

from __future__ import annotations

from dataclasses import replace

from common.errors import Reason, Refusal, Violation, invalid
from common.model.server import Server, Severity, VirtualNetwork
from common.model.vm import Interface, Vm
from vcenter.core.command import Alarm
from vcenter.core.dispute import begun
from vcenter.core.view import View


def merged(said: Vm, known: Vm | None) -> Vm:
    """What the host says now; where it says nothing, what is known stays (the operator's part)."""
    if known is None:
        return said
    by_mac = {i.mac: i for i in known.interfaces}
    return replace(
        said,
        name=said.name or known.name,
        tenant=said.tenant or known.tenant,
        group=said.group or (known.group if said.tenant in ("", known.tenant) else ""),
        interfaces=tuple(_merged_interface(i, by_mac.get(i.mac)) for i in said.interfaces),
        profile=said.profile if said.profile is not None else known.profile,
        resources=said.resources if said.resources.memory_mib else known.resources,
    )


def _merged_interface(said: Interface, known: Interface | None) -> Interface:
    if known is None or said.network:
        return said
    return replace(said, network=known.network, vni=known.vni, ips=said.ips or known.ips)


def resolved(view: View, vm: Vm) -> Vm:
    """Checks tenant, group and networks; fills in a network's only VNI. Refuses what is unknown."""
    if not vm.tenant:
        bare = tuple(replace(i, network="", vni=0) for i in vm.interfaces)
        return replace(vm, group="", interfaces=bare)
    shape = (vm.tenant, vm.group, *[(i.network, i.vni) for i in vm.interfaces])
    if shape in view.sound():
        return vm
    if view.tenant(vm.tenant) is None:
        raise Refusal(
            Reason.UNKNOWN_TENANT,
            f"tenant {vm.tenant!r} is not declared",
            violations=(Violation("vm.tenant", "unknown tenant"),),
        )
    if vm.group and view.group(vm.tenant, vm.group) is None:
        raise Refusal(
            Reason.UNKNOWN_GROUP,
            f"group {vm.tenant}/{vm.group} is not declared",
            violations=(Violation("vm.group", "unknown group"),),
        )
    interfaces = tuple(
        _resolved_interface(view, vm.tenant, i, f"vm.interfaces[{n}]")
        for n, i in enumerate(vm.interfaces)
    )
    if interfaces != vm.interfaces:
        return replace(vm, interfaces=interfaces)
    view.sound().add(shape)
    return vm


def _resolved_interface(view: View, tenant: str, interface: Interface, path: str) -> Interface:
    if not interface.network:
        if not interface.vni:
            return interface
        network = view.network_of(interface.vni)
    else:
        network = view.network(interface.network)
    if network is None or network.tenant != tenant:
        name = interface.network or f"of VNI {interface.vni}"
        raise Refusal(
            Reason.UNKNOWN_NETWORK,
            f"tenant {tenant!r} has no network {name}",
            violations=(Violation(f"{path}.network", "unknown network"),),
        )
    vni = _vni(network, interface, path)
    if (interface.network, interface.vni) == (network.network_id, vni):
        return interface
    return replace(interface, network=network.network_id, vni=vni)


def _vni(network: VirtualNetwork, interface: Interface, path: str) -> int:
    if interface.vni in network.vnis:
        return interface.vni
    if not interface.vni and len(network.vnis) == 1:
        return network.vnis[0]
    known = ", ".join(map(str, network.vnis))
    raise invalid([Violation(f"{path}.vni", f"{network.network_id!r} has VNI {known}")])


def claim_conflict(view: View, vm: Vm, server_id: str, now_ms: int) -> Alarm | None:
    """Who else holds one of the VM's addresses; never merged, never overwritten (A6, I8)."""
    for claim in vm.claims():
        holder = view.holder(claim)
        if holder is None or holder == vm.vm_id:
            continue
        record = view.must_vm(holder)
        return Alarm(
            Reason.CLAIM_HELD,
            f"{claim.address} in VNI {claim.vni} is held by VM {holder}",
            Severity.CRITICAL,
            vm.vm_id,
            server_id,
            {
                "address": claim.address,
                "vni": str(claim.vni),
                "holder": holder,
                "holder_server": record.location.server_id,
                "holder_epoch": str(record.location.epoch),
                "holder_revision": str(record.revision),
                "claimant": vm.vm_id,
                "claimant_server": server_id,
            },
            withheld=vm.tenant != record.vm.tenant,
            besides=begun(view, claim, holder, now_ms),
        )
    return None


def missing_capabilities(view: View, vm: Vm, server: Server) -> list[str]:
    """What the VM's effective profile needs and the host cannot enforce."""
    return sorted(view.profile_of(vm).needs() - server.capabilities)


def refuse_if_not_enforceable(view: View, vm: Vm, server: Server) -> None:
    missing = missing_capabilities(view, vm, server)
    if missing:
        raise Refusal(
            Reason.NOT_ENFORCEABLE,
            f"vServer {server.server_id} cannot enforce {', '.join(missing)} for VM {vm.vm_id}",
            evidence={"server": server.server_id, "missing": ",".join(missing)},
        )
