"""One identity in two domains: refused by neither, since each is an authority of its own, but shown
with both sides' evidence (I8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.errors import Reason
from common.model.place import is_abroad
from common.model.server import Severity
from common.model.vm import VmRecord
from vcenter.core.command import Alarm, Decision
from vcenter.core.configuration import claim_conflict
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Held:
    """A domain's VMs, under its name."""

    domain: str
    view: View


@dataclass(frozen=True, slots=True)
class Raise:
    """Puts alarms on record. Each is one alert, however often it is raised."""

    alarms: Sequence[Alarm]

    def decide(self, view: View, now_ms: int) -> Decision:
        found = {c.key: c for alarm in self.alarms for c in alarm.changes(view, now_ms)}
        return Decision(tuple(found.values()))


def duplicate(domain: str, record: VmRecord, other: Held) -> Alarm | None:
    """What is wrong with this VM of `domain`, as far as the other domain is concerned."""
    twin = other.view.vm(record.vm.vm_id)
    if _is_on_its_way(record, twin):
        return None
    alarm = _twice(record, twin) if twin is not None else _claimed(record, other.view)
    if alarm is None:
        return None
    sides = {"domain": domain, "holder_domain": other.domain}
    text = f"{alarm.message}, in domain {other.domain}; VM {record.vm.vm_id} is in {domain}"
    return replace(alarm, message=text, evidence=alarm.evidence | sides)


def _is_on_its_way(record: VmRecord, twin: VmRecord | None) -> bool:
    """A move between domains has it in both ledgers, and one of two words may be older than the
    other: what is said of a VM in the middle of a move is looked at again when that has ended."""
    if is_abroad(record.location.server_id) or twin is None:
        return is_abroad(record.location.server_id)
    older = min(record, twin, key=lambda one: one.location.epoch)
    return is_abroad(twin.location.server_id) or bool(older.operation_id)


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
