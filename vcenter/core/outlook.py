"""Why each operation waits, and when it should end: the queue played forward. An estimate."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from common.model.operation import FENCE, Operation, Phase, Standing
from vcenter.core import indexes
from vcenter.core.forecast import Forecasts
from vcenter.core.loads import Loads
from vcenter.core.queue import Busy, Limits, hindrances, queued
from vcenter.core.view import View

HORIZON = 200  # turns that are played; what comes later has no estimate


def outlook(view: View, limits: Limits, now_ms: int) -> dict[str, Standing]:
    """By operation id, for every active one."""
    active = list(view.all(Operation, indexes.ACTIVE))
    ends = _ends(view, limits, active, now_ms)
    busy, loads = Busy(view, limits), Loads(view)
    found = {}
    for operation in active:
        if operation.phase is Phase.FENCING:
            continue
        if not operation.vm_id:
            found[operation.operation_id] = _of_parts(view, operation, ends)
            continue
        end = ends.get(operation.operation_id, 0)
        waits = _waits(view, busy, loads, operation)
        found[operation.operation_id] = Standing(waits, end)
    return found


def _waits(view: View, busy: Busy, loads: Loads, move: Operation) -> tuple[str, ...]:
    if move.phase is not Phase.QUEUED:
        return ()
    return busy.reasons(move) or tuple(o.message for o in hindrances(view, loads, move))


def _of_parts(view: View, operation: Operation, ends: dict[str, int]) -> Standing:
    parts = list(view.all(Operation, indexes.parts_of(operation.operation_id)))
    active = [part.operation_id for part in parts if not part.phase.final]
    succeeded = sum(part.phase is Phase.SUCCEEDED for part in parts)
    known = [ends[part] for part in active if part in ends]
    end = max(known) if known and len(known) == len(active) else 0
    return Standing((), end, (len(parts), len(parts) - len(active), succeeded))


def parts_of(view: View, operation: Operation) -> Standing | None:
    """Of one that has ended, what is left to say."""
    return None if operation.vm_id or operation.kind == FENCE else _of_parts(view, operation, {})


def _ends(view: View, limits: Limits, active: list[Operation], now_ms: int) -> dict[str, int]:
    """Those under way end when they should, and those that wait have their turn one by one."""
    busy, waiting = Busy(view, limits), queued(view)
    moving = [m for m in active if m.in_motion]
    ending = [(_end(view, m, now_ms), m.operation_id, m) for m in moving if not m.apart]
    heapify(ending)
    ends = {operation_id: end for end, operation_id, _ in ending}
    at = now_ms
    for _ in range(HORIZON):
        while ready := [m for m in waiting if busy.has_room(m)]:
            turn = min(ready, key=busy.rank)
            waiting.remove(turn)
            busy.add(turn)
            ends[turn.operation_id] = at + expected_ms(view, turn)
            heappush(ending, (ends[turn.operation_id], turn.operation_id, turn))
        if not waiting or not ending:
            break
        at, _, ended = heappop(ending)
        busy.remove(ended)
    return ends


def _end(view: View, move: Operation, now_ms: int) -> int:
    begun = next(p.entered_ms for p in move.phases if p.phase is Phase.PREPARING)
    return max(now_ms, begun + expected_ms(view, move))


def expected_ms(view: View, move: Operation) -> int:
    """How long the move should take from its turn on, as it was predicted when it was asked for."""
    record = view.vm(move.vm_id)
    if move.predicted is not None:
        return int(move.predicted.total_ms)
    return int(Forecasts(view).of(record, move.destination).total_ms) if record is not None else 0
