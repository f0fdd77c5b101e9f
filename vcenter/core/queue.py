"""Whose turn it is: moves wait here for hosts and links that are busy with others.

Nothing is kept but the operations themselves. Who moves next follows from the table at this
moment: the highest priority first; among equals whoever's drain has the fewest moves under way, so
that no drain holds up another; then the oldest. A move holds its place at the destination while it
waits (`loads`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from common.errors import Reason
from common.model.operation import Failure, Operation, Phase
from vcenter.core import indexes, keys
from vcenter.core.blackout import observed
from vcenter.core.command import Decision
from vcenter.core.loads import Loads
from vcenter.core.movement import Event, advance
from vcenter.core.overlay import Overlay
from vcenter.core.placement import PASSING, Objection, failure_from, objections
from vcenter.core.planning import Where, plan
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Limits:
    """Moves at a time: from a vServer, to one, and between one pair of tunnel ends."""

    per_source: int = 2
    per_destination: int = 2
    per_link: int = 2


class _Bound(NamedTuple):
    place: tuple[str, ...]
    limit: int
    what: str


class Busy:
    """How many moves there are at each place."""

    def __init__(self, view: View, limits: Limits) -> None:
        self._view = view
        self._limits = limits
        self._count: Counter[tuple[str, ...]] = Counter()
        self._known: dict[tuple[str, str], tuple[_Bound, ...]] = {}
        for move in view.all(Operation, indexes.ACTIVE):
            if move.in_motion:
                self.add(move)

    def add(self, move: Operation) -> None:
        self._count.update(bound.place for bound in self._bounds(move))
        self._count["family", move.parent] += 1

    def remove(self, move: Operation) -> None:
        self._count.subtract(bound.place for bound in self._bounds(move))
        self._count["family", move.parent] -= 1

    def has_room(self, move: Operation) -> bool:
        return all(self._count[bound.place] < bound.limit for bound in self._bounds(move))

    def reasons(self, move: Operation) -> tuple[str, ...]:
        """Why there is no room."""
        return tuple(
            f"{self._count[bound.place]} of {bound.limit} moves {bound.what}"
            for bound in self._bounds(move)
            if self._count[bound.place] >= bound.limit
        )

    def rank(self, move: Operation) -> tuple[int, int, int, str]:
        """The smallest is next. Moves that belong together share one turn with the others."""
        family = self._count["family", move.parent] if move.parent else 0
        return -move.priority, family, move.created_ms, move.operation_id

    def _bounds(self, move: Operation) -> tuple[_Bound, ...]:
        route = move.source, move.destination
        known = self._known.get(route)
        if known is None:
            known = self._known[route] = tuple(self._bounds_of(*route))
        return known

    def _bounds_of(self, source: str, destination: str) -> Iterator[_Bound]:
        limits, ends = self._limits, (self._vtep(source), self._vtep(destination))
        yield _Bound(("from", source), limits.per_source, f"from {source}")
        yield _Bound(("to", destination), limits.per_destination, f"to {destination}")
        yield _Bound(("link", *ends), limits.per_link, f"over {ends[0]} -> {ends[1]}")

    def _vtep(self, server_id: str) -> str:
        server = self._view.server(server_id)
        return server.vtep_address if server is not None and server.vtep_address else server_id


@dataclass(frozen=True, slots=True)
class GiveTurns:
    """Level-triggered: said twice, or too early, it changes nothing."""

    limits: Limits

    def decide(self, view: View, now_ms: int) -> Decision:
        return Decision(tuple(give_turns(view, self.limits, now_ms)))


def give_turns(view: View, limits: Limits, now_ms: int) -> list[Change]:
    """Starts who can start, ends what can never start, and ends operations whose parts have."""
    overlay = Overlay(view)
    changes: dict[str, Change] = {}
    for decision in (*_turns(overlay, limits, now_ms), *_parents(overlay, now_ms)):
        changes.update((change.key, change) for change in decision.changes)
    return list(changes.values())


def _turns(overlay: Overlay, limits: Limits, now_ms: int) -> Iterator[Decision]:
    busy, loads = Busy(overlay, limits), Loads(overlay)
    waiting = queued(overlay)
    while ready := [move for move in waiting if busy.has_room(move)]:
        move = min(ready, key=busy.rank)
        waiting.remove(move)
        against = hindrances(overlay, loads, move)
        if against and (elsewhere := _placed_anew(overlay, loads, move)) is not None:
            yield from _stored(overlay, elsewhere)
            waiting.append(elsewhere)
            continue
        if against and {o.reason for o in against} <= PASSING:
            continue
        decision = _begun(overlay, move, against, now_ms)
        overlay.add(decision.changes)
        if not against:
            busy.add(move)
        yield decision


def _placed_anew(view: View, loads: Loads, move: Operation) -> Operation | None:
    """Where the operator named no destination, any that fits will do: the first plan may have been
    overtaken."""
    parent, record = view.operation(move.parent), view.vm(move.vm_id)
    if parent is None or parent.destination or record is None:
        return None
    where = Where(near=parent.near)
    planned = plan(view, loads, record, where, move.move_kind, move.operation_id)
    if planned.objections or record.location.server_id != move.source:
        return None
    loads.promise(planned.destination, record.vm.resources)
    return replace(move, destination=planned.destination)


def _stored(overlay: Overlay, move: Operation) -> Iterator[Decision]:
    change = Change(keys.operation(move.operation_id), move)
    overlay.add((change,))
    yield Decision((change,))


def _begun(view: View, move: Operation, against: list[Objection], now_ms: int) -> Decision:
    if not against:
        epoch = view.must_vm(move.vm_id).location.epoch
        begun = replace(move, epoch_before=epoch, receipt=observed(view, move))
        return advance(view, begun, Event.TURN, now_ms)
    return advance(view, replace(move, failure=failure_from(against)), Event.UNFIT, now_ms)


def queued(view: View) -> list[Operation]:
    return [m for m in view.all(Operation, indexes.ACTIVE) if m.phase is Phase.QUEUED]


def hindrances(view: View, loads: Loads, move: Operation) -> list[Objection]:
    """What has come up against a move since it was accepted."""
    record = view.vm(move.vm_id)
    if record is None:
        return [Objection(Reason.UNKNOWN_VM, f"VM {move.vm_id} is not registered any more")]
    if record.location.server_id != move.source:
        text = f"VM {move.vm_id} is on {record.location.server_id} by now"
        return [Objection(Reason.STALE_EPOCH, text)]
    destination = view.must_server(move.destination)
    return objections(view, loads, record, destination, move.move_kind, move.operation_id)


def _parents(overlay: Overlay, now_ms: int) -> Iterator[Decision]:
    for parent in list(overlay.all(Operation, indexes.ACTIVE)):
        if parent.phase is not Phase.UNDER_WAY or parent.vm_id:
            continue
        parts = list(overlay.all(Operation, indexes.parts_of(parent.operation_id)))
        if all(part.phase.final for part in parts):
            yield _ended(overlay, parent, parts, now_ms)


def _ended(view: View, parent: Operation, parts: list[Operation], now_ms: int) -> Decision:
    failed = [part for part in parts if part.phase is not Phase.SUCCEEDED]
    if not failed:
        return advance(view, parent, Event.PARTS_DONE, now_ms)
    text = f"{len(failed)} of {len(parts)} VMs did not move: " + ", ".join(
        part.vm_id for part in failed[:5]
    )
    failure = parent.failure or Failure(Reason.SOME_FAILED.name, text)
    return advance(view, replace(parent, failure=failure), Event.PARTS_FAILED, now_ms)
