"""Where a VM may go: every reason against, not the first; and which host is the best one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.errors import Reason
from common.model.operation import Failure, MoveKind, Operation
from common.model.server import Liveness, Server
from common.model.vm import VmRecord, VmState
from vcenter.core import indexes
from vcenter.core.configuration import missing_capabilities
from vcenter.core.loads import Loads
from vcenter.core.nearness import Place
from vcenter.core.twin import frozen, said
from vcenter.core.view import View

VCPU_OVERCOMMIT = 16  # CPUs are shared in time, memory is not


@dataclass(frozen=True, slots=True)
class Objection:
    reason: Reason
    message: str
    server_id: str = ""
    vm_id: str = ""


def failure_from(found: Sequence[Objection]) -> Failure:
    """Why a move that was planned is not carried out."""
    return Failure(found[0].reason.name, "; ".join(o.message for o in found))


# What may pass by itself: a move that waits for its turn goes on waiting.
PASSING = frozenset({Reason.SERVER_SILENT, Reason.NO_CAPACITY, Reason.ANTI_AFFINITY})


def best_of(loads: Loads, servers: list[Server], place: Place | None = None) -> Server | None:
    """The nearest; then the lowest share of memory in use; ties by id, so that the answer is
    repeatable."""

    def rank(server: Server) -> tuple[float, float, str]:
        distance = place.distance_km(server) if place is not None else 0.0
        return distance, loads.share(server), server.server_id

    return min(servers, key=rank, default=None)


def objections(
    view: View,
    loads: Loads,
    record: VmRecord,
    destination: Server,
    kind: MoveKind,
    own: str = "",
) -> list[Objection]:
    """Everything that stands against a move of this kind of this VM to this host. `own`: the id of
    the move that is asked about, where it is in the table already."""
    found = [*movable(view, record, kind, own), *against(view, loads, record, destination)]
    return [*found, *unable(view, record, destination, kind)]


def kind_for(asked: MoveKind, record: VmRecord) -> MoveKind:
    """How a VM is moved as it is now: what is off stays off, and what runs is shut down only for a
    move that was asked for as cold."""
    if asked is MoveKind.STANDBY:
        return asked
    if record.location.state is VmState.SHUT_OFF:
        return MoveKind.COLD
    return MoveKind.RESTART if asked is MoveKind.COLD else asked


def movable(view: View, record: VmRecord, kind: MoveKind, own: str = "") -> Iterator[Objection]:
    """What stands against moving the VM anywhere."""
    vm_id, source = record.vm.vm_id, record.location.server_id
    for move in view.all(Operation, indexes.moving(vm_id)):
        if move.operation_id != own:
            text = f"VM {vm_id} is being moved by operation {move.operation_id}"
            if move.apart:
                end = f"`vctl op cancel {move.operation_id}`"
                text = f"VM {vm_id} has a standby, which must be ended first: {end}"
            yield Objection(Reason.ALREADY_MOVING, text, vm_id=vm_id)
    dispute = view.dispute(vm_id)
    if dispute is not None and dispute.frozen_ms:
        yield Objection(
            Reason.IDENTITY_FROZEN, f"VM {vm_id} is frozen until it is thawed", vm_id=vm_id
        )
    for twin in frozen(view, record.vm):
        yield Objection(Reason.IN_TWO_DOMAINS, said(twin), vm_id=vm_id)
    if record.location.state is VmState.LOST_NEEDS_FENCE:
        yield Objection(Reason.NEEDS_FENCE, f"nobody can say who runs VM {vm_id}", vm_id=vm_id)
    elif record.location.state is not _needs(kind):
        reason = Reason.NOT_SHUT_OFF if kind is MoveKind.COLD else Reason.NOT_RUNNING
        yield Objection(reason, f"VM {vm_id} is {record.location.state}", vm_id=vm_id)
    if not record.vm.assigned:
        text = f"VM {vm_id} has no tenant or network yet"
        yield Objection(Reason.UNASSIGNED, text, vm_id=vm_id)
    origin = view.server(source)
    if origin is None or origin.liveness is not Liveness.ATTACHED:
        text = f"the source {source} is silent"
        yield Objection(Reason.SERVER_SILENT, text, source, vm_id)


def _needs(kind: MoveKind) -> VmState:
    return VmState.SHUT_OFF if kind is MoveKind.COLD else VmState.RUNNING


def unable(view: View, record: VmRecord, there: Server, kind: MoveKind) -> Iterator[Objection]:
    """A standby needs two hosts that can."""
    if kind is not MoveKind.STANDBY:
        return
    for host in (view.server(record.location.server_id), there):
        if host is not None and not host.keeps_standbys:
            text = f"{host.server_id} cannot keep standbys"
            yield Objection(Reason.INCOMPATIBLE_HOST, text, host.server_id, record.vm.vm_id)


def against(view: View, loads: Loads, record: VmRecord, there: Server) -> Iterator[Objection]:
    """What stands against this host."""
    for reason, text in _against(view, loads, record, there):
        yield Objection(reason, text, there.server_id, record.vm.vm_id)


def _against(
    view: View, loads: Loads, record: VmRecord, destination: Server
) -> Iterator[tuple[Reason, str]]:
    there = destination.server_id
    if there == record.location.server_id:
        yield Reason.SAME_SERVER, f"VM {record.vm.vm_id} is already on {there}"
        return
    if destination.liveness is not Liveness.ATTACHED:
        yield Reason.SERVER_SILENT, f"the destination {there} is silent"
    if destination.cordoned:
        yield Reason.CORDONED, f"{there} is cordoned"
    if not destination.migration_uri:
        yield Reason.INCOMPATIBLE_HOST, f"{there} gives no migration address"
    source = view.server(record.location.server_id)
    if source is not None and source.hypervisor != destination.hypervisor:
        text = f"{source.hypervisor} here, {destination.hypervisor} there"
        yield Reason.INCOMPATIBLE_HOST, text
    yield from _capacity(loads, record, destination)
    missing = missing_capabilities(view, record.vm, destination)
    if missing:
        yield Reason.NOT_ENFORCEABLE, f"{there} cannot enforce {', '.join(missing)}"
    for member in _kept_apart(view, record, there):
        yield Reason.ANTI_AFFINITY, f"VM {member} of the same group is on {there} or on its way"


def _kept_apart(view: View, record: VmRecord, server_id: str) -> Iterator[str]:
    """The other members of its group that are there, or will be."""
    vm = record.vm
    group = view.group(vm.tenant, vm.group) if vm.group else None
    if group is None or not group.anti_affinity:
        return
    for member in view.all(VmRecord, indexes.in_group(group.tenant, group.name)):
        if member.vm.vm_id != vm.vm_id and server_id in _places(view, member):
            yield member.vm.vm_id


def _places(view: View, record: VmRecord) -> set[str]:
    """Where it is, which it may stay after all, and where it is going."""
    moves = view.all(Operation, indexes.moving(record.vm.vm_id))
    return {record.location.server_id, *(move.destination for move in moves)}


def _capacity(loads: Loads, record: VmRecord, destination: Server) -> Iterator[tuple[Reason, str]]:
    used = loads.besides(destination.server_id, record)
    need, have = record.vm.resources, destination.capacity
    for what, promised, wanted, limit in (
        ("MiB of memory", used.memory_mib, need.memory_mib, have.memory_mib),
        ("vCPUs", used.vcpus, need.vcpus, have.vcpus * VCPU_OVERCOMMIT),
    ):
        if limit and promised + wanted > limit:
            yield (
                Reason.NO_CAPACITY,
                f"{destination.server_id} has {max(0, limit - promised)} of {limit} {what} left,"
                f" the VM needs {wanted}",
            )
