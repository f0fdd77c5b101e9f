"""Identities that change hands too often are frozen until an operator thaws them.

As EVPN does with a MAC that moves five times in 180 s (RFC 7432, 15.1). Of a VM every change of
owner counts that no move ordered. Of an address every change of holder counts once somebody has
been refused it; before that it is nobody's quarrel. A refused claim does not count: else a thief
could freeze its victim. Frozen, the identity stays with its holder, who keeps working.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from common.errors import Reason, Refusal
from common.model.dispute import Dispute, Turn
from common.model.identity import Claim
from common.model.server import Severity
from common.model.vm import Vm, VmKey, VmRecord
from vcenter.core import indexes, keys
from vcenter.core.command import Alarm, Decision
from vcenter.core.table import Change
from vcenter.core.view import View

_FORGOTTEN = 20  # at most so many old disputes are dropped with a new one
_NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody gets an identity that another had."""

    identity: str
    before: str
    after: str


def identity_of(key: VmKey) -> str:
    return key.vm_id if key.claim is None else text_of(key.claim)


def text_of(claim: Claim) -> str:
    return f"{claim.vni}/{claim.address}"


def begun(view: View, claim: Claim, holder: str, now_ms: int) -> tuple[Change, ...]:
    """Somebody was refused the address: from now on it is watched."""
    identity = text_of(claim)
    if view.dispute(identity) is not None:
        return ()
    dispute = Dispute(identity, holder, now_ms)
    return (*_old(view, now_ms), Change(keys.dispute(identity), dispute))


def hands(view: View, vm: Vm, before: VmRecord | None) -> Iterator[Hand]:
    """Disputed addresses that this VM gets."""
    if (before is not None and before.vm.interfaces == vm.interfaces) or not view.has_disputes():
        return
    for claim in vm.claims():
        dispute = view.dispute(text_of(claim))
        if dispute is not None and (dispute.holder != vm.vm_id or dispute.frozen_ms):
            yield Hand(dispute.identity, dispute.holder, vm.vm_id)


def passed(view: View, given: Iterable[Hand], vm_id: str, server_id: str, now_ms: int) -> Decision:
    """What to write down with the change; or the refusal, where it would be one too many."""
    changes: list[Change] = []
    for hand in given:
        known = view.dispute(hand.identity) or Dispute(hand.identity, hand.before, now_ms)
        if known.frozen_ms and hand.after != known.holder:
            raise _frozen(known)
        if hand.after == known.holder:
            continue
        dispute = _turned(view, known, hand, now_ms)
        if dispute.frozen_ms:
            return _freeze(view, dispute, vm_id, server_id, now_ms)
        changes += (*_old(view, now_ms), Change(keys.dispute(hand.identity), dispute))
    return Decision(tuple(changes)) if changes else _NOTHING


def _turned(view: View, known: Dispute, hand: Hand, now_ms: int) -> Dispute:
    """One turn more; frozen, and with its holder as before, if that is one too many."""
    since = now_ms - view.limits.within_ms
    turns = (
        *(turn for turn in known.turns if turn.at_ms > since),
        Turn(now_ms, hand.before, hand.after),
    )
    if len(turns) >= view.limits.turns:
        return replace(known, turns=turns, touched_ms=now_ms, frozen_ms=now_ms)
    return replace(known, turns=turns, touched_ms=now_ms, holder=hand.after)


def _freeze(view: View, dispute: Dispute, vm_id: str, server_id: str, now_ms: int) -> Decision:
    text = (
        f"{dispute.identity} changed hands {len(dispute.turns)} times since"
        f" {dispute.turns[0].at_ms} ms; it is frozen with {dispute.holder}"
    )
    evidence = _evidence(dispute)
    alarm = Alarm(
        Reason.IDENTITY_FROZEN, text, Severity.CRITICAL, vm_id, server_id, evidence
    ).decision(view, now_ms)
    frozen = Change(keys.dispute(dispute.identity), dispute)
    return replace(alarm, changes=(*alarm.changes, frozen))


def _frozen(dispute: Dispute) -> Refusal:
    text = f"{dispute.identity} is frozen with {dispute.holder} until an operator thaws it"
    return Refusal(Reason.IDENTITY_FROZEN, text, evidence=_evidence(dispute))


def _evidence(dispute: Dispute) -> dict[str, str]:
    turns = {
        f"turn.{n}": f"{turn.before} to {turn.after} at {turn.at_ms} ms"
        for n, turn in enumerate(dispute.turns, start=1)
    }
    return {"identity": dispute.identity, "holder": dispute.holder, **turns}


def _old(view: View, now_ms: int) -> Iterator[Change]:
    """Disputes that are over, so that they do not pile up."""
    since = now_ms - view.limits.within_ms
    for key in islice(view.find(indexes.DISPUTES), _FORGOTTEN):
        dispute = view.get(key)
        if isinstance(dispute, Dispute) and not dispute.frozen_ms and dispute.touched_ms < since:
            yield Change(key, None)


@dataclass(frozen=True, slots=True)
class Thaw:
    """An operator has looked: the identity may change hands again, and counting begins anew; or
    orders about who holds it here are taken, although another domain holds it too."""

    identity: str

    def decide(self, view: View, now_ms: int) -> Decision:
        changes: list[Change] = []
        dispute, twin = view.dispute(self.identity), view.twin(self.identity)
        if dispute is not None and dispute.frozen_ms:
            changes.append(Change(keys.dispute(self.identity), None))
        if twin is not None and twin.frozen:
            changes.append(Change(keys.twin(self.identity), replace(twin, thawed_ms=now_ms)))
        if not changes:
            raise Refusal(Reason.NOT_FROZEN, f"{self.identity} is not frozen")
        return Decision(tuple(changes))
