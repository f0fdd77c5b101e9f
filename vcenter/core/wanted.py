"""What a host should look like, derived from the ledger and nothing else.

Level-triggered: the same table gives the same answer, so that saying it again is harmless. Also
says which hosts a change concerns, so that nobody else is bothered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from common.errors import Reason
from common.model.operation import MoveStep, Operation, Phase
from common.model.server import Group, Server
from common.model.vm import VmRecord, VmState
from common.model.wanted import Forward, MoveOrder, PortState, WantedNetwork, WantedVm
from vcenter.core import indexes
from vcenter.core.configuration import missing_capabilities
from vcenter.core.keys import Ledgered
from vcenter.core.movement import order_epoch
from vcenter.core.table import Applied
from vcenter.core.view import View

Item: TypeAlias = str | int  # a vm_id, or a VNI

_AT_SOURCE = {
    Phase.COPYING: MoveStep.COPY,
    Phase.ABORTING: MoveStep.ABORT,
    Phase.SETTLING: MoveStep.CLEAN,
}
_AT_DESTINATION = {
    Phase.PREPARING: MoveStep.PREPARE,
    Phase.COPYING: MoveStep.PREPARE,
    Phase.ABORTING: MoveStep.CLEAN,
    Phase.SWITCHING: MoveStep.START,
}


def wanted_vm(view: View, server_id: str, vm_id: str) -> WantedVm | None:
    """None: this host has nothing to do with the VM."""
    record = view.vm(vm_id)
    if record is None:
        return None
    move = view.move_of(record)
    order = _order(view, server_id, move) if move is not None else None
    owned = record.location.server_id == server_id
    if not owned and order is None:
        return None
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
    )


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
    if server_id == move.source:
        step, peer_id = _AT_SOURCE.get(move.phase), move.destination
    elif server_id == move.destination:
        step, peer_id = _AT_DESTINATION.get(move.phase), move.source
        if move.phase is Phase.ABORTING and move.source not in move.acks:
            step = MoveStep.PREPARE  # the copy may have been faster: nothing is thrown away yet
    else:
        return None
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
    )


def hosts_of(view: View, record: VmRecord) -> set[str]:
    """The owner, and both sides of a move."""
    move = view.move_of(record)
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


@dataclass(frozen=True, slots=True)
class Roster:
    """One VNI as all of its hosts share it; made once for a revision, not once for each host."""

    vni: int
    network: str
    vteps: dict[str, str]  # by vServer; "" where it gave none
    forwards: tuple[tuple[str, Forward], ...]  # owner, and how others reach the interface


def roster(view: View, vni: int) -> Roster:
    servers = {host: view.server(host) for host in hosts_on(view, vni)}
    vteps = {host: server.vtep_address for host, server in servers.items() if server}
    network = view.network_of(vni)
    forwards = _forwards(view.all(VmRecord, indexes.on_vni(vni)), vni, vteps)
    return Roster(vni, network.network_id if network else "", vteps, tuple(forwards))


def wanted_network(view: View, server_id: str, vni: int) -> WantedNetwork | None:
    """None: no VM of this VNI is here or on its way here."""
    if server_id not in hosts_on(view, vni):
        return None
    return as_seen_from(roster(view, vni), server_id)


def as_seen_from(known: Roster, server_id: str) -> WantedNetwork | None:
    if server_id not in known.vteps:
        return None
    return WantedNetwork(
        vni=known.vni,
        network=known.network,
        forwards=tuple(forward for owner, forward in known.forwards if owner != server_id),
        vteps=tuple(sorted({v for s, v in known.vteps.items() if s != server_id and v})),
    )


def _forwards(
    records: Iterator[VmRecord], vni: int, vteps: dict[str, str]
) -> Iterator[tuple[str, Forward]]:
    for record in records:
        owner = record.location.server_id
        vtep = vteps.get(owner)
        for interface in record.vm.interfaces:
            if vtep and interface.vni == vni:
                yield owner, Forward(interface.mac, vtep)


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
    """Which items of which hosts a change may have changed. `view` is the table after it."""
    for side in (change.before, change.after):
        if isinstance(side, VmRecord):
            yield from _by_vm(view, side)
        elif isinstance(side, Operation):
            record = view.vm(side.vm_id)
            if record is not None:
                items: list[Item] = [side.vm_id, *record.vm.vnis()]
                yield from product((side.source, side.destination), items)
        elif isinstance(side, Group):
            for record in view.all(VmRecord, indexes.in_group(side.tenant, side.name)):
                yield from ((host, record.vm.vm_id) for host in hosts_of(view, record))
    if _network_facts(change.before) != _network_facts(change.after):
        yield from _by_server(view, change.after)


def _by_vm(view: View, record: VmRecord) -> Iterator[tuple[str, Item]]:
    for host in hosts_of(view, record):
        yield host, record.vm.vm_id
    for vni in record.vm.vnis():
        concerned = hosts_of(view, record) | hosts_on(view, vni)
        yield from ((host, vni) for host in concerned)


def _network_facts(record: Ledgered | None) -> object:
    """What of a server others depend on; liveness and beats are not."""
    if not isinstance(record, Server):
        return None
    return record.vtep_address, record.capabilities, record.migration_uri


def _by_server(view: View, record: Ledgered | None) -> Iterator[tuple[str, Item]]:
    if not isinstance(record, Server):
        return
    for item in items_of(view, record.server_id):
        yield record.server_id, item
        yield from ((host, item) for host in _sharing(view, item))


def _sharing(view: View, item: Item) -> set[str]:
    """Who is told where a host is: all on the VNI, or the other side of a move."""
    if isinstance(item, int):
        return hosts_on(view, item)
    record = view.vm(item)
    return hosts_of(view, record) if record is not None else set()
