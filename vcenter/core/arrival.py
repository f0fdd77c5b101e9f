"""A VM of another domain that is to move here: may it, to which host, and what it brings along.

What its tenant has there must be the same here. What is missing is declared with it, if the caller
may do that here; what is different is an objection, never changed and never merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import Reason, Refusal
from common.model.operation import Operation, Phase
from common.model.profile import effective
from common.model.server import Group, Server, Tenant, VirtualNetwork
from common.model.vm import Location, VmRecord
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.configuration import claim_conflict
from vcenter.core.handover import followed
from vcenter.core.loads import Loads
from vcenter.core.movement import put
from vcenter.core.overlay import Overlay
from vcenter.core.placement import Objection, against, best_of
from vcenter.core.table import Change
from vcenter.core.twin import frozen, said
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Guest:
    """As the source's domain has it; `record` is on `source`, whose id names that domain."""

    record: VmRecord
    source: Server
    group: Group | None = None
    networks: tuple[VirtualNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a plan says of one guest. `creates`: what would be declared for it."""

    guest: Guest
    destination: str
    objections: tuple[Objection, ...]
    creates: tuple[Change, ...]


def plan(view: View, guests: Iterable[Guest], destination: str, may_declare: bool) -> list[Arrival]:
    """The dry run. `destination` empty: the least loaded host that fits. Each guest sees what was
    promised to those before it."""
    overlay, planned = Overlay(view), []
    loads = Loads(overlay)
    for guest in guests:
        arrival = _planned(overlay, loads, guest, destination, may_declare)
        planned.append(arrival)
        if not arrival.objections:
            overlay.add((*arrival.creates, Change(keys.vm(guest.record.vm.vm_id), guest.record)))
            loads.promise(arrival.destination, guest.record.vm.resources)
    return planned


def _planned(
    view: View, loads: Loads, guest: Guest, destination: str, may_declare: bool
) -> Arrival:
    overlay = Overlay(view)
    overlay.add((Change(keys.server(guest.source.server_id), guest.source),))
    creates, basic = _declared(overlay, guest, may_declare)
    overlay.add(creates)
    found = [*basic, *_identity(overlay, guest)]
    if destination:
        found += _against(overlay, loads, guest, destination)
    else:
        destination, nowhere = _chosen(overlay, loads, guest)
        found += nowhere
    return Arrival(guest, destination, tuple(found), creates)


def _against(view: View, loads: Loads, guest: Guest, destination: str) -> Iterable[Objection]:
    there = view.server(destination)
    if there is None:
        text = f"no vServer {destination!r} has ever attached in this domain"
        return (Objection(Reason.UNKNOWN_SERVER, text, destination, guest.record.vm.vm_id),)
    return against(view, loads, guest.record, there)


def _chosen(view: View, loads: Loads, guest: Guest) -> tuple[str, list[Objection]]:
    servers = list(view.all(Server, indexes.SERVERS))
    objected = {s.server_id: list(against(view, loads, guest.record, s)) for s in servers}
    best = best_of(loads, [s for s in servers if not objected[s.server_id]])
    if best is not None:
        return best.server_id, []
    vm_id = guest.record.vm.vm_id
    nowhere = Objection(Reason.NO_DESTINATION, f"no vServer can take VM {vm_id}", vm_id=vm_id)
    return "", [nowhere, *(o for each in objected.values() for o in each)]


def _identity(view: View, guest: Guest) -> Iterator[Objection]:
    vm, epoch = guest.record.vm, guest.record.location.epoch
    known, grave = view.vm(vm.vm_id), view.tombstone(vm.vm_id)
    if known is not None:
        text = f"VM {vm.vm_id} is registered in this domain, on {known.location.server_id}"
        yield Objection(Reason.RUNNING_IN_TWO_PLACES, text, vm_id=vm.vm_id)
    if grave is not None and grave.epoch > epoch:
        text = f"VM {vm.vm_id} has been at epoch {grave.epoch} in this domain, not {epoch}"
        yield Objection(Reason.STALE_EPOCH, text, vm_id=vm.vm_id)
    for twin in frozen(view, vm):
        yield Objection(Reason.IN_TWO_DOMAINS, said(twin), vm_id=vm.vm_id)
    conflict = claim_conflict(view, vm, guest.record.location.server_id, now_ms=0)
    if conflict is not None:
        text = Reason.CLAIM_HELD.explanation if conflict.withheld else conflict.message
        yield Objection(Reason.CLAIM_HELD, text, vm_id=vm.vm_id)


# ---- tenant, networks, group ----


def _declared(
    view: View, guest: Guest, may_declare: bool
) -> tuple[tuple[Change, ...], list[Objection]]:
    """What is missing, as changes or as objections; and what is different."""
    different = [*_different_networks(view, guest), *_different_policy(view, guest)]
    missing = list(_missing(view, guest))
    if may_declare:
        return tuple(change for change, _ in missing), different
    return (), [*different, *(objection for _, objection in missing)]


def _missing(view: View, guest: Guest) -> Iterator[tuple[Change, Objection]]:
    vm = guest.record.vm
    vm_id, group = vm.vm_id, guest.group
    if view.tenant(vm.tenant) is None:
        text = f"tenant {vm.tenant!r} is not declared in this domain"
        yield (
            Change(keys.tenant(vm.tenant), Tenant(vm.tenant)),
            Objection(Reason.UNKNOWN_TENANT, text, vm_id=vm_id),
        )
    for network in guest.networks:
        if view.network(network.network_id) is None:
            text = f"network {network.network_id!r} is not declared in this domain"
            put_network = Change(keys.network(network.network_id), replace(network, revision=0))
            yield put_network, Objection(Reason.UNKNOWN_NETWORK, text, vm_id=vm_id)
    if group is not None and view.group(group.tenant, group.name) is None:
        text = f"group {group.tenant}/{group.name} is not declared in this domain"
        put_group = Change(keys.group(group.tenant, group.name), replace(group, revision=0))
        yield put_group, Objection(Reason.UNKNOWN_GROUP, text, vm_id=vm_id)


def _different_networks(view: View, guest: Guest) -> Iterator[Objection]:
    """A VNI is one network's, in every domain that it spans."""
    vm = guest.record.vm
    for network in guest.networks:
        here = view.network(network.network_id)
        needed = set(network.vnis) if here is None else vm.vnis() & set(network.vnis)
        for vni in sorted(needed):
            holder = view.network_of(vni)
            same = holder is not None and holder.network_id == network.network_id
            if same and holder is not None and holder.tenant == vm.tenant:
                continue
            if holder is not None:
                text = f"VNI {vni} is {holder.network_id!r} of another owner in this domain"
                if holder.tenant == vm.tenant:
                    text = f"VNI {vni} is network {holder.network_id!r} in this domain"
                yield Objection(Reason.VNI_TAKEN, text, vm_id=vm.vm_id)
            elif here is not None:
                text = f"network {network.network_id!r} has no VNI {vni} in this domain"
                yield Objection(Reason.UNKNOWN_NETWORK, text, vm_id=vm.vm_id)


def _different_policy(view: View, guest: Guest) -> Iterator[Objection]:
    """The profile that is in force on it comes along unchanged, or it does not come."""
    vm, group = guest.record.vm, guest.group
    if group is None or view.group(group.tenant, group.name) is None:
        return
    there = effective(vm.profile, group.profile)
    if view.profile_of(vm).digest() != there.digest():
        text = f"group {group.tenant}/{group.name} has another profile in this domain"
        yield Objection(Reason.POLICY_DIFFERS, text, vm_id=vm.vm_id)


# ---- the move itself ----


@dataclass(frozen=True, slots=True)
class Received:
    """The answer to `Told`: the move as it is here, or why there is none."""

    move: Operation | None
    objections: Sequence[Objection] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What the source's domain says of a move to here, in our names. `guest`: while it has it."""

    move: Operation
    guest: Guest | None
    may_declare: bool

    def decide(self, view: View, now_ms: int) -> Decision:
        mine = view.operation(self.move.operation_id)
        if mine is not None:
            return self._go_on(view, mine, now_ms)
        if self.move.phase is Phase.PREPARING and self.guest is not None:
            return self._admit(view, self.guest, now_ms)
        if self.move.phase.final:  # kept, so that an earlier word, which comes late, begins nothing
            over = replace(self.move, revision=0)
            return Decision((put(over),), Received(over))
        return Decision(reply=Received(None))

    def _go_on(self, view: View, mine: Operation, now_ms: int) -> Decision:
        if (mine.source, mine.vm_id) != (self.move.source, self.move.vm_id):
            text = f"operation {mine.operation_id} is another one in this domain"
            raise Refusal(Reason.FORBIDDEN, text)
        decision = followed(view, mine, self.move, now_ms)
        return replace(decision, reply=Received(decision.reply))

    def _admit(self, view: View, guest: Guest, now_ms: int) -> Decision:
        (arrival,) = plan(view, (guest,), self.move.destination, self.may_declare)
        if arrival.objections:
            return Decision(reply=Received(None, arrival.objections))
        vm_id, at = guest.record.vm.vm_id, guest.record.location
        move = replace(self.move, acks=(), revision=0)
        location = Location(guest.source.server_id, at.state, at.epoch)
        record = VmRecord(guest.record.vm, location, now_ms, move.operation_id)
        changes = [
            *arrival.creates,
            Change(keys.server(guest.source.server_id), guest.source),
            Change(keys.vm(vm_id), record),
            put(move),
        ]
        if view.tombstone(vm_id) is not None:
            changes.append(Change(keys.gone(vm_id), None))
        return Decision(tuple(changes), Received(move))
