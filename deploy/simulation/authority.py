"""What must hold of all ledgers together, and of every answer about where a VM is.

The truth is what each vCenter's disk has, at the moment at which it has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.codec.times import from_duration
from common.model.place import domain_of, is_abroad, qualified
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import signaling_pb2 as pb
from deploy.simulation.journal import Journal, short

DELAY_S = 6.5  # what is heard may have travelled so long, over two slow links
STEADY_S = 30.0  # who has had a VM for so long is known to everybody who can hear of it


@dataclass(frozen=True, slots=True)
class Held:
    """From `since` on: who has the VM (DOMAIN/SERVER, empty: nobody), and whether that domain's
    own ledger says so, or only the one that has given it away."""

    since: float
    owner: str
    epoch: int
    taken: bool


class Authority:
    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        self._journal = journal
        self._now = now
        self._here: dict[str, dict[str, str]] = {}  # by VM: the domains that have it, and where
        self._epochs: dict[tuple[str, int], str] = {}
        self._newest: dict[str, int] = {}
        self.history: dict[str, list[Held]] = {}

    # ---- ledgers ----

    def placed(
        self, domain: str, vm_id: str, before: VmRecord | None, after: VmRecord | None
    ) -> None:
        """A VM's record has changed in this domain's ledger, durably."""
        was, now = _own(before), _own(after)
        here = self._here.setdefault(vm_id, {})
        if now is not None:
            here[domain] = now.location.server_id
            self._say(vm_id, qualified(now.location.server_id, domain), now, taken=True)
        else:
            here.pop(domain, None)
        if was is not None and now is None:
            owner = after.location.server_id if after is not None else ""
            self._say(vm_id, owner, after or was, taken=False)
        if len(here) > 1:
            text = f"{short(vm_id)} belongs to {' and to '.join(sorted(here))}"
            self._journal.violated("I1", text)

    def _say(self, vm_id: str, owner: str, record: VmRecord, *, taken: bool) -> None:
        epoch = record.location.epoch
        known = self._epochs.setdefault((vm_id, epoch), owner) if owner else owner
        if known != owner:
            text = f"{short(vm_id)}: epoch {epoch} is {known}'s, and {owner}'s"
            self._journal.violated("I3", text)
        if epoch < self._newest.get(vm_id, 0):
            text = f"{short(vm_id)}: epoch {self._newest[vm_id]} -> {epoch}, for {owner}"
            self._journal.violated("I3", text)
        self._newest[vm_id] = max(epoch, self._newest.get(vm_id, 0))
        past = self.history.setdefault(vm_id, [])
        held = Held(self._now(), owner, epoch, taken)
        if not past or (past[-1].owner, past[-1].epoch, past[-1].taken) != (owner, epoch, taken):
            past.append(held)

    # ---- answers ----

    def answered(self, asked: str, vm_id: str, begun: float, result: pb.LookupResult) -> None:
        """This vCenter was asked then, and now there is its answer."""
        certainty = result.certainty
        name = pb.Certainty.Name(certainty)[10:].lower()
        if not result.found:
            self._denied(asked, vm_id, begun, result, name)
            return
        place = qualified(result.location.server_id, result.authority)
        if result.authority == asked and certainty != pb.CERTAINTY_AUTHORITATIVE:
            text = f"{asked} has {short(vm_id)} itself, {name}"
            self._journal.violated("wrong answer", text)
        said = f"{asked} has {short(vm_id)} on {place} at epoch {result.location.epoch}"
        if certainty == pb.CERTAINTY_AUTHORITATIVE:
            spans = [h for h in self._between(vm_id, begun) if h.taken]
        elif certainty == pb.CERTAINTY_CACHED:
            age = from_duration(result.age)
            spans = self._between(vm_id, begun - age - DELAY_S)
        else:
            spans = self.history.get(vm_id, [])
        if not any((h.owner, h.epoch) == (place, result.location.epoch) for h in spans):
            self._journal.violated("wrong answer", f"{said}, {name}")

    def _denied(
        self, asked: str, vm_id: str, begun: float, result: pb.LookupResult, name: str
    ) -> None:
        """Nobody has it with certainty only if nobody has, or it has just come."""
        spans = self._between(vm_id, begun - STEADY_S)
        steady = len(spans) == 1 and spans[0].owner and self._now() - spans[0].since > STEADY_S
        if result.certainty == pb.CERTAINTY_AUTHORITATIVE and self.history.get(vm_id):
            self._journal.violated("wrong answer", f"{asked}: no {short(vm_id)}, {name}")
        elif result.certainty == pb.CERTAINTY_CACHED and steady:
            text = f"{asked}: no {short(vm_id)}, {name}, and it is on {spans[0].owner}"
            self._journal.violated("wrong answer", text)

    def _between(self, vm_id: str, begun: float) -> list[Held]:
        """Everything that was true at some moment from then on."""
        past = self.history.get(vm_id, [])
        first = max((n for n, h in enumerate(past) if h.since <= begun), default=0)
        return past[first:]

    def owner(self, vm_id: str) -> tuple[str, int]:
        """DOMAIN/SERVER, and the epoch; empty if it was never registered."""
        past = self.history.get(vm_id)
        return (past[-1].owner, past[-1].epoch) if past else ("", 0)

    def domain(self, vm_id: str) -> str:
        return domain_of(self.owner(vm_id)[0])


def _own(record: VmRecord | None) -> VmRecord | None:
    is_own = record is not None and not is_abroad(record.location.server_id)
    return record if is_own else None
