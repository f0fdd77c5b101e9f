"""The plan for one VM: where it would go, or every reason why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from common.errors import Reason
from common.model.budget import Budget
from common.model.disk import Disk
from common.model.operation import MoveKind
from common.model.server import Server
from common.model.vm import VmRecord
from vcenter.core import indexes
from vcenter.core.loads import Loads
from vcenter.core.nearness import find_place
from vcenter.core.placement import Objection, against, best_of, movable, objections, unable
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Where:
    """A vServer, the one nearest to a place, or (both empty) the least loaded."""

    destination: str = ""
    near: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """How VMs are to be moved. `copy_disks`: there is no shared storage."""

    kind: MoveKind = MoveKind.LIVE
    copy_disks: bool = False
    budget: Budget = Budget()


@dataclass(frozen=True, slots=True)
class Plan:
    """For one VM a destination, or every reason why there is none. `creates`: what would be
    declared for it in another domain."""

    record: VmRecord
    destination: str
    objections: tuple[Objection, ...]
    kind: MoveKind
    creates: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    budget: Budget = Budget()


def on_terms(view: View, planned: Plan, asked: Asked, disks: tuple[Disk, ...] | None) -> Plan:
    """With what it takes along. `disks`: the VM's own; None: they are not known."""
    planned = replace(planned, budget=asked.budget)
    if not asked.copy_disks:
        disks = tuple(disk for disk in disks or () if disk.local)
        if not disks:
            return planned
    if why := _why_disks_stay(planned, disks):
        stay = Objection(Reason.DISKS_STAY, why, vm_id=planned.record.vm.vm_id)
        return replace(planned, objections=(*planned.objections, stay))
    taken = replace(planned, disks=disks or ())
    return replace(taken, objections=(*planned.objections, *_unable(view, taken)))


def _why_disks_stay(planned: Plan, disks: tuple[Disk, ...] | None) -> str:
    vm_id, source = planned.record.vm.vm_id, planned.record.location.server_id
    if disks is None:
        return f"{source} has not said yet which disks VM {vm_id} has"
    return next((disk.problem for disk in disks if disk.problem), "")


def _unable(view: View, planned: Plan) -> Iterator[Objection]:
    """While a VM runs its hypervisor copies its disks; of one that is off, both hosts' agents."""
    if not (planned.kind.hands_over and planned.disks and planned.destination):
        return
    for server_id in (planned.record.location.server_id, planned.destination):
        host = view.server(server_id)
        if host is not None and not host.carries_disks:
            text = f"{server_id} cannot copy the disks of a VM that is off"
            vm_id = planned.record.vm.vm_id
            yield Objection(Reason.INCOMPATIBLE_HOST, text, server_id, vm_id)


def plan(
    view: View, loads: Loads, record: VmRecord, where: Where, kind: MoveKind, own: str = ""
) -> Plan:
    """The dry run: the same code that decides the move."""
    if where.destination:
        server = view.must_server(where.destination)
        every = objections(view, loads, record, server, kind, own)
        return Plan(record, where.destination, tuple(every), kind)
    basic = tuple(movable(view, record, kind, own))
    destination, found = ("", basic) if basic else _chosen(view, loads, record, where, kind)
    return Plan(record, destination, found, kind)


def _chosen(
    view: View, loads: Loads, record: VmRecord, where: Where, kind: MoveKind
) -> tuple[str, tuple[Objection, ...]]:
    """The best destination, or none and why."""
    place = find_place(view, where.near) if where.near else None
    home = view.must_server(record.location.server_id)
    others = [s for s in view.all(Server, indexes.SERVERS) if s.server_id != home.server_id]
    objected = {
        s.server_id: (*against(view, loads, record, s), *unable(view, record, s, kind))
        for s in others
    }
    best = best_of(loads, [s for s in others if not objected[s.server_id]], place)
    vm_id = record.vm.vm_id
    if best is None:
        nowhere = Objection(Reason.NO_DESTINATION, f"no vServer can take VM {vm_id}", vm_id=vm_id)
        return "", (nowhere, *(o for each in objected.values() for o in each))
    is_move = kind is not MoveKind.STANDBY
    if is_move and place is not None and place.distance_km(home) <= place.distance_km(best):
        text = (
            f"VM {vm_id} is on {home.server_id}, and no vServer nearer to {where.near} can take it"
        )
        return "", (Objection(Reason.SAME_SERVER, text, home.server_id, vm_id),)
    return best.server_id, ()
