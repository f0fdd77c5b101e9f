"""Where a VM may go: every reason against, not the first; and which host is the least loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import Reason
from common.model.operation import Operation
from common.model.server import Liveness, Server
from common.model.vm import Resources, VmRecord, VmState
from vcenter.core import indexes
from vcenter.core.configuration import missing_capabilities
from vcenter.core.view import View

VCPU_OVERCOMMIT = 16  # CPUs are shared in time, memory is not


@dataclass(frozen=True, slots=True)
class Objection:
    reason: Reason
    message: str
    server_id: str = ""


def committed(view: View, server_id: str) -> Resources:
    """What the host has promised: to its VMs, and to those that are on their way."""
    owned = list(view.all(VmRecord, indexes.owned_by(server_id)))
    arriving = [
        record
        for move in view.all(Operation, indexes.ACTIVE)
        if move.destination == server_id and (record := view.vm(move.vm_id)) is not None
    ]
    promised = {r.vm.vm_id: r.vm.resources for r in [*owned, *arriving]}
    return Resources(
        sum(r.vcpus for r in promised.values()), sum(r.memory_mib for r in promised.values())
    )


def share(view: View, server: Server) -> float:
    """Committed memory over capacity; 0 where the capacity is unknown."""
    capacity = server.capacity.memory_mib
    return committed(view, server.server_id).memory_mib / capacity if capacity else 0.0


def least_loaded(view: View, servers: list[Server]) -> Server | None:
    """The lowest share of memory in use; ties by id, so that the answer is repeatable."""
    return min(servers, key=lambda s: (share(view, s), s.server_id), default=None)


def objections(view: View, record: VmRecord, destination: Server) -> list[Objection]:
    """Everything that stands against a live move of this VM to this host."""
    return [*movable(view, record), *_against(view, record, destination)]


def movable(view: View, record: VmRecord) -> Iterator[Objection]:
    """What stands against moving the VM anywhere."""
    vm_id, source = record.vm.vm_id, record.location.server_id
    if record.operation_id:
        text = f"VM {vm_id} is being moved by operation {record.operation_id}"
        yield Objection(Reason.ALREADY_MOVING, text)
    if record.location.state is VmState.LOST_NEEDS_FENCE:
        yield Objection(Reason.NEEDS_FENCE, f"nobody can say who runs VM {vm_id}")
    elif record.location.state is not VmState.RUNNING:
        yield Objection(Reason.NOT_RUNNING, f"VM {vm_id} is {record.location.state}")
    if not record.vm.assigned:
        yield Objection(Reason.UNASSIGNED, f"VM {vm_id} has no tenant or network yet")
    origin = view.server(source)
    if origin is None or origin.liveness is not Liveness.ATTACHED:
        yield Objection(Reason.SERVER_SILENT, f"the source {source} is silent", source)


def _against(view: View, record: VmRecord, destination: Server) -> Iterator[Objection]:
    there = destination.server_id
    if there == record.location.server_id:
        yield Objection(Reason.SAME_SERVER, f"VM {record.vm.vm_id} is already on {there}", there)
        return
    if destination.liveness is not Liveness.ATTACHED:
        yield Objection(Reason.SERVER_SILENT, f"the destination {there} is silent", there)
    if not destination.migration_uri:
        text = f"{there} gives no migration address"
        yield Objection(Reason.INCOMPATIBLE_HOST, text, there)
    yield from _compatibility(view, record, destination)
    yield from _capacity(view, record, destination)
    missing = missing_capabilities(view, record.vm, destination)
    if missing:
        text = f"{there} cannot enforce {', '.join(missing)}"
        yield Objection(Reason.NOT_ENFORCEABLE, text, there)


def _compatibility(view: View, record: VmRecord, destination: Server) -> Iterator[Objection]:
    source = view.server(record.location.server_id)
    if source is not None and source.hypervisor != destination.hypervisor:
        text = f"{source.hypervisor} here, {destination.hypervisor} there"
        yield Objection(Reason.INCOMPATIBLE_HOST, text, destination.server_id)


def _capacity(view: View, record: VmRecord, destination: Server) -> Iterator[Objection]:
    used = committed(view, destination.server_id)
    need, have = record.vm.resources, destination.capacity
    for what, promised, wanted, limit in (
        ("MiB of memory", used.memory_mib, need.memory_mib, have.memory_mib),
        ("vCPUs", used.vcpus, need.vcpus, have.vcpus * VCPU_OVERCOMMIT),
    ):
        if limit and promised + wanted > limit:
            text = (
                f"{destination.server_id} has {max(0, limit - promised)} of {limit} {what} left,"
                f" the VM needs {wanted}"
            )
            yield Objection(Reason.NO_CAPACITY, text, destination.server_id)
