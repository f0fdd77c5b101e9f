"""An identity that two domains hold: no orders are taken about a VM that has it, until one of the
two has given it up, or an operator says that they are.

What runs goes on, and what its host says of it is believed; a move that is under way comes to its
end. Only what somebody wants done with it waits, for nobody can tell which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from common.errors import Reason, Refusal
from common.model.identity import Claim
from common.model.twin import Side, Twin, key_of
from common.model.vm import Vm, VmRecord
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.dispute import text_of
from vcenter.core.duplicate import Held, is_elsewhere
from vcenter.core.table import Change
from vcenter.core.view import View

MAX_TWINS = 1000  # frozen at a time; what is beyond that is only alarmed
_Holding: TypeAlias = tuple[str, VmRecord]  # a domain, and its word


def holders(identity: str, everybody: Sequence[Held]) -> tuple[Side, ...]:
    """Who holds it in each domain; none, unless two do. Raises ValueError: it is no identity."""
    key = key_of(identity)
    found = [
        (held.domain, record)
        for held in everybody
        if (record := held.view.by_key(key)) and not is_elsewhere(held.domain, record, everybody)
    ]
    rivals = _of_one_vm(found) if key.claim is None else _of_one_network(key.claim, found)
    return tuple(sorted(_side(domain, record) for domain, record in rivals))


def _side(domain: str, record: VmRecord) -> Side:
    at = record.location
    return Side(domain, record.vm.vm_id, at.server_id, at.epoch)


def _of_one_vm(found: list[_Holding]) -> list[_Holding]:
    """Without the older word of a VM that is in the middle of a move: it may have come from there,
    and its domain not have said so yet."""
    newest = max((record.location.epoch for _, record in found), default=0)
    left = [
        (domain, record)
        for domain, record in found
        if not record.operation_id or record.location.epoch == newest
    ]
    return left if len(left) > 1 else []


def _of_one_network(claim: Claim, found: list[_Holding]) -> list[_Holding]:
    """Different VMs in one network: in another owner's, of the same VNI, it is another address."""
    by_network: dict[tuple[str, str], list[_Holding]] = {}
    for domain, record in found:
        network = record.vm.tenant, _network(record.vm, claim)
        by_network.setdefault(network, []).append((domain, record))
    rivals = (each for each in by_network.values() if len({r.vm.vm_id for _, r in each}) > 1)
    return next(rivals, [])


def _network(vm: Vm, claim: Claim) -> str:
    on_vni = (i for i in vm.interfaces if i.vni == claim.vni)
    return next((i.network for i in on_vni if claim.address in (i.mac, *i.ips)), "")


# ---- what is written down ----


@dataclass(frozen=True, slots=True)
class Seen:
    """Who holds the identity, as it is seen here now; `sides` empty: no two domains do."""

    identity: str
    sides: tuple[Side, ...]

    def decide(self, view: View, now_ms: int) -> Decision:
        if self.sides:
            return Decision(tuple(_noted(view, Twin(self.identity, self.sides, now_ms))))
        known = view.twin(self.identity)
        if known is None or known.told_by:
            return Decision()
        return Decision((Change(keys.twin(self.identity), None),))


@dataclass(frozen=True, slots=True)
class Told:
    """All that `by`, a parent, says is held twice. What is seen here stays as it is seen."""

    by: str
    twins: Sequence[Twin]

    def decide(self, view: View, now_ms: int) -> Decision:
        said = {twin.identity: twin for twin in self.twins}
        known = {t.identity: t for t in view.all(Twin, indexes.TWINS)}
        gone = (
            Change(keys.twin(twin.identity), None)
            for twin in known.values()
            if twin.told_by == self.by and twin.identity not in said
        )
        come = (
            change
            for twin in said.values()
            if twin.identity not in known or known[twin.identity].told_by == self.by
            for change in _noted(view, Twin(twin.identity, twin.sides, now_ms, self.by))
        )
        return Decision((*gone, *come))


def _noted(view: View, twin: Twin) -> Iterator[Change]:
    """A thaw holds for the domains that it was said of; with a further one it is frozen anew."""
    known = view.twin(twin.identity)
    if known is not None:
        thawed_ms = known.thawed_ms if twin.domains <= known.domains else 0
        twin = replace(twin, since_ms=known.since_ms, thawed_ms=thawed_ms)
    elif len(list(view.find(indexes.TWINS))) >= MAX_TWINS:
        return
    if known is None or replace(known, revision=0) != twin:
        yield Change(keys.twin(twin.identity), twin)


# ---- what follows ----


def twins_of(view: View, vm: Vm) -> Iterator[Twin]:
    """Those of its identity and its addresses, thawed ones too."""
    if not view.has_twins():
        return
    for identity in (vm.vm_id, *map(text_of, vm.claims())):
        twin = view.twin(identity)
        if twin is not None:
            yield twin


def frozen(view: View, vm: Vm) -> Iterator[Twin]:
    return (twin for twin in twins_of(view, vm) if twin.frozen)


def refuse_if_frozen(view: View, vm: Vm) -> None:
    for twin in frozen(view, vm):
        evidence = {f"side.{n}": _who(side) for n, side in enumerate(twin.sides, start=1)}
        evidence["identity"] = twin.identity
        raise Refusal(Reason.IN_TWO_DOMAINS, said(twin), evidence=evidence)


def said(twin: Twin) -> str:
    """For people: who has it where, and what to do."""
    who = "; ".join(map(_who, twin.sides))
    return f"{twin.identity} is held in {len(twin.domains)} domains: {who}"


def _who(side: Side) -> str:
    return f"{side.domain}: VM {side.vm_id} on {side.server_id} at epoch {side.epoch}"
