"""One identity in two domains: refused by neither, since each is an authority of its own, but shown
with both sides' evidence (I8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import Reason
from common.model.operation import Operation
from common.model.place import domain_of, is_abroad
from common.model.server import Severity
from common.model.vm import VmRecord
from vcenter.core import indexes, packed
from vcenter.core.command import Alarm, Decision
from vcenter.core.configuration import claim_conflict
from vcenter.core.table import Table
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Held:
    """A domain's VMs, under its name."""

    domain: str
    view: Table


@dataclass(frozen=True, slots=True)
class Duplicate:
    """`identity`: what both hold, as `dispute` writes it."""

    identity: str
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class Raise:
    """Puts alarms on record. Each is one alert, however often it is raised."""

    alarms: Sequence[Alarm]

    def decide(self, view: View, now_ms: int) -> Decision:
        found = {c.key: c for alarm in self.alarms for c in alarm.changes(view, now_ms)}
        return Decision(tuple(found.values()))


def touched(domain: str, record: VmRecord, all_held: Iterable[Held]) -> Iterator[Held]:
    """Of the other domains, those that know the VM, or one of its addresses: mostly none, which is
    found out at once, for each VM is looked at."""
    vm = record.vm
    addresses = [(claim.vni, packed.address_number(claim.address)) for claim in vm.claims()]
    for held in all_held:
        if held.domain != domain and held.view.vms.touches(vm.vm_id, addresses):
            yield held


def duplicate(
    domain: str, record: VmRecord, other: Held, everybody: Sequence[Held]
) -> Duplicate | None:
    """What is wrong with this VM of `domain`, as far as the other domain is concerned. Of two words
    one may be older than the other: `everybody` may know of the move between them."""
    if is_elsewhere(domain, record, everybody):
        return None
    twin = other.view.vm(record.vm.vm_id)
    alarm = _twice(record, twin) if twin is not None else _claimed(record, other.view)
    if alarm is None:
        return None
    holder = twin or other.view.must_vm(alarm.evidence["holder"])
    if is_elsewhere(other.domain, holder, everybody) or (twin and _is_moving(record, twin)):
        return None
    sides = {"domain": domain, "holder_domain": other.domain}
    text = f"{alarm.message}, in domain {other.domain}; VM {record.vm.vm_id} is in {domain}"
    alarm = replace(alarm, message=text, evidence=alarm.evidence | sides)
    return Duplicate(_identity(alarm), alarm)


def _identity(alarm: Alarm) -> str:
    if alarm.reason is not Reason.CLAIM_HELD:
        return alarm.vm_id
    return f"{alarm.evidence['vni']}/{alarm.evidence['address']}"


def is_elsewhere(domain: str, record: VmRecord, everybody: Sequence[Held]) -> bool:
    """By that domain's own word, or by what is known of a move that has taken it away since."""
    if is_abroad(record.location.server_id):
        return True
    vm_id = record.vm.vm_id
    return any(
        (domain_of(move.source) or held.domain) == domain
        and (domain_of(move.destination) or held.domain) != domain
        and move.epoch_after > record.location.epoch
        for held in everybody
        for tag in (indexes.moving(vm_id), indexes.moved(vm_id), indexes.lost(vm_id))
        for move in held.view.all(Operation, tag)
    )


def _is_moving(record: VmRecord, twin: VmRecord) -> bool:
    """What the older word says of a VM in the middle of a move is looked at again when that has
    ended."""
    return bool(min(record, twin, key=lambda one: one.location.epoch).operation_id)


def _twice(record: VmRecord, twin: VmRecord) -> Alarm:
    there = twin.location
    return Alarm(
        Reason.RUNNING_IN_TWO_PLACES,
        f"VM {twin.vm.vm_id} is on {there.server_id} at epoch {there.epoch}",
        Severity.CRITICAL,
        record.vm.vm_id,
        record.location.server_id,
        {"holder_server": there.server_id, "holder_epoch": str(there.epoch)},
    )


def _claimed(record: VmRecord, view: View) -> Alarm | None:
    """What else a conflict inside one domain begins is that domain's own affair."""
    alarm = claim_conflict(view, record.vm, record.location.server_id, now_ms=0)
    return replace(alarm, besides=()) if alarm is not None else None
