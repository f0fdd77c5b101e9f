"""What a host should look like, derived from the ledger and nothing else.

Level-triggered: the same table gives the same answer, so that saying it again is harmless. Also
says which hosts a change concerns, so that nobody else is bothered.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import product
from typing import TypeAlias

from common.errors import Reason
from common.model.disk import Disk
from common.model.operation import MoveKind, MoveStep, Operation, Phase
from common.model.server import Group, Server
from common.model.vm import VmRecord, VmState
from common.model.wanted import MoveOrder, PortState, WantedVm
from vcenter.core import indexes
from vcenter.core.configuration import missing_capabilities
from vcenter.core.keys import Ledgered
from vcenter.core.movement import order_epoch
from vcenter.core.table import Applied
from vcenter.core.view import View

Item: TypeAlias = str | int  # a vm_id, or a VNI
_FORM = 1  # grows when the same records make other words, so that hosts hear them again

_AT_SOURCE = {
    Phase.COPYING: MoveStep.COPY,
    Phase.ABORTING: MoveStep.ABORT,
    Phase.SETTLING: MoveStep.CLEAN,
    Phase.RETURNING: MoveStep.START,
}
# A standby's source copies and then watches; nothing is cleaned there, for the VM stays.
_STANDBY_AT_SOURCE = {
    Phase.COPYING: MoveStep.COPY,
    Phase.MIRRORING: MoveStep.MIRROR,
    Phase.ABORTING: MoveStep.ABORT,
}
_STANDBY_AT_DESTINATION = {
    Phase.PREPARING: MoveStep.PREPARE,
    Phase.COPYING: MoveStep.MIRROR,
    Phase.MIRRORING: MoveStep.MIRROR,
    Phase.ABORTING: MoveStep.CLEAN,
    Phase.SWITCHING: MoveStep.START,
}
_AT_DESTINATION = {
    Phase.PREPARING: MoveStep.PREPARE,
    Phase.COPYING: MoveStep.PREPARE,
    Phase.ABORTING: MoveStep.CLEAN,
    Phase.SWITCHING: MoveStep.START,
    Phase.RETURNING: MoveStep.CLEAN,
}


def wanted_vm(view: View, server_id: str, vm_id: str) -> WantedVm | None:
    """None: this host has nothing to do with the VM."""
    record = view.vm(vm_id)
    order = _order_for(view, server_id, record)
    if record is None or not (order or record.location.server_id == server_id):
        return None
    owned = record.location.server_id == server_id
    profile = view.profile_of(record.vm)
    closed = _closed_reason(view, server_id, record, owned)
    return WantedVm(
        vm=record.vm,
        epoch=record.location.epoch,
        owned=owned,
        profile=profile,
        profile_hash=profile.digest(),
        ports=PortState.CLOSED if closed else PortState.OPEN,
        closed_reason=closed,
        move=order,
        digest=_digest(view, server_id, record, order),
    )


def wanted_digest(view: View, server_id: str, vm_id: str) -> int | None:
    """`wanted_vm(…).digest`, without the work of making the rest."""
    record = view.vm(vm_id)
    order = _order_for(view, server_id, record)
    if record is None or not (order or record.location.server_id == server_id):
        return None
    return _digest(view, server_id, record, order)


def _digest(view: View, server_id: str, record: VmRecord, order: MoveOrder | None) -> int:
    """Of everything that `wanted_vm` reads, by revision where it has one: revisions are durable and
    never given twice, so that it says the same after a restart and in every replica."""
    group = view.group(record.vm.tenant, record.vm.group) if record.vm.group else None
    facts = (
        _FORM,
        record.vm.vm_id,
        record.revision,
        group.revision if group is not None else 0,
        record.location.server_id == server_id,
        sorted(view.must_server(server_id).capabilities),
        order,
    )
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=8).digest(), "big")


def _order_for(view: View, server_id: str, record: VmRecord | None) -> MoveOrder | None:
    move = view.work_on(record) if record is not None else None
    return _order(view, server_id, move) if move is not None else None


def _closed_reason(view: View, server_id: str, record: VmRecord, owned: bool) -> str:
    if not owned:
        return Reason.NOT_OWNER.name
    if not record.vm.assigned:
        return Reason.UNASSIGNED.name
    if record.location.state is VmState.LOST_NEEDS_FENCE:
        return Reason.NEEDS_FENCE.name
    if missing_capabilities(view, record.vm, view.must_server(server_id)):
        return Reason.NOT_ENFORCEABLE.name
    return ""


def _order(view: View, server_id: str, move: Operation) -> MoveOrder | None:
    if server_id not in (move.source, move.destination):
        return None
    at_source = server_id == move.source
    peer_id = move.destination if at_source else move.source
    step = _step(move, at_source=at_source)
    if step is None:
        return None
    peer = view.must_server(peer_id)
    return MoveOrder(
        operation_id=move.operation_id,
        step=step,
        peer_server=peer_id,
        peer_address=peer.vtep_address,
        peer_migration_uri=peer.migration_uri,
        epoch=order_epoch(move),
        kind=move.move_kind,
        gated=move.gated and step is MoveStep.COPY,
        disks=_disks(move, step),
        budget=move.budget,
        port=move.port if step is MoveStep.COPY else 0,
        definition=move.definition if step is MoveStep.START else b"",
    )


def _step(move: Operation, *, at_source: bool) -> MoveStep | None:
    if move.move_kind is MoveKind.STANDBY:
        return (_STANDBY_AT_SOURCE if at_source else _STANDBY_AT_DESTINATION).get(move.phase)
    if at_source:
        return _AT_SOURCE.get(move.phase)
    if move.phase is Phase.ABORTING and move.source not in move.acks:
        return MoveStep.PREPARE  # the copy may have been faster: nothing is thrown away yet
    return _AT_DESTINATION.get(move.phase)


def _disks(move: Operation, step: MoveStep) -> tuple[Disk, ...]:
    """To make room for, to copy; and to remove where they have come from, once the VM lives with
    its copies. What is left at a destination when it does not is known there: nobody else can tell
    it from what was there before, or from what the guest wrote before it was shut off."""
    if step in (MoveStep.PREPARE, MoveStep.COPY) or move.move_kind is MoveKind.STANDBY:
        return move.disks
    lives_elsewhere = move.phase is Phase.SETTLING and move.failure is None
    return move.disks if step is MoveStep.CLEAN and lives_elsewhere else ()


def hosts_of(view: View, record: VmRecord) -> set[str]:
    """The owner, and both sides of a move, or of its standby."""
    move = view.work_on(record)
    hosts = {record.location.server_id}
    return hosts | {move.source, move.destination} if move is not None else hosts


def hosts_on(view: View, vni: int) -> set[str]:
    """Owners of the VNI's VMs, and both sides of their moves. Cheap, however many VMs there are."""
    hosts = set(view.owners_on(vni))
    for move in view.all(Operation, indexes.ACTIVE):
        record = view.vm(move.vm_id)
        moved = record is not None and record.operation_id == move.operation_id
        if record is not None and moved and vni in record.vm.vnis():
            hosts |= {move.source, move.destination}
    return hosts


def items_of(view: View, server_id: str) -> set[Item]:
    """Everything that could concern a host, for the first message of a session."""
    mine = {r.vm.vm_id: r for r in view.all(VmRecord, indexes.owned_by(server_id))}
    for move in view.all(Operation, indexes.ACTIVE):
        record = view.vm(move.vm_id)
        if record is not None and server_id in (move.source, move.destination):
            mine[move.vm_id] = record
    items: set[Item] = set(mine)
    return items.union(*(record.vm.vnis() for record in mine.values()))


def affected(view: View, change: Applied) -> Iterator[tuple[str, Item]]:
    """Which VMs of which hosts a change may have changed, and which hosts may have come to a VNI
    or left it. What became different on a VNI is `roster`'s. `view` is the table after the change.
    """
    for side in (change.before, change.after):
        if isinstance(side, VmRecord):
            yield from product(hosts_of(view, side), [side.vm.vm_id, *side.vm.vnis()])
        elif isinstance(side, Operation):
            record = view.vm(side.vm_id)
            vnis = record.vm.vnis() if record is not None else ()
            items: list[Item] = [side.vm_id, *vnis] if side.vm_id else []
            yield from product((side.source, side.destination), items)
        elif isinstance(side, Group):
            for record in view.all(VmRecord, indexes.in_group(side.tenant, side.name)):
                yield from ((host, record.vm.vm_id) for host in hosts_of(view, record))
    if _network_facts(change.before) != _network_facts(change.after):
        yield from _by_server(view, change.after)


def _network_facts(record: Ledgered | None) -> object:
    """What of a server others depend on; liveness and beats are not."""
    if not isinstance(record, Server):
        return None
    return record.vtep_address, record.capabilities, record.migration_uri


def _by_server(view: View, record: Ledgered | None) -> Iterator[tuple[str, Item]]:
    """Its own VMs, and the other sides of its moves."""
    if not isinstance(record, Server):
        return
    for item in items_of(view, record.server_id):
        owner = view.vm(item) if isinstance(item, str) else None
        if owner is not None:
            yield from ((host, item) for host in hosts_of(view, owner))
