"""How long a move should take, and for how long its guest should stand still: from measurements.

The best ground is what happened: moves of this VM between the same two hosts, while it wrote about
as much as now. Without one, `precopy` says how the copy should go, from how fast the guest writes
and how fast this way has carried memory; what moves on it took besides is added. Without any, it is
assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

from common.model.budget import Budget
from common.model.disk import Disk
from common.model.operation import Basis, MoveKind, Operation, Prediction
from common.model.vm import VmRecord
from vcenter.core import indexes
from vcenter.core.planning import Plan
from vcenter.core.precopy import DEFAULT, Course, course
from vcenter.core.view import View

LAST = 5  # moves that count: hosts and links change
QUIET = 4 << 20  # bytes a second that no sample can tell from none
ALIKE = 2.0  # between two samples of a guest that does what it did
BYTES_PER_SECOND = 110e6  # a gigabit link
OVERHEAD_MS, STILL_MS = 1_500.0, 100.0  # to prepare, switch and start; to hand devices over


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a VM's host reported of it last. `dirty`: bytes written in a second; `disks` None: they
    are not known."""

    memory_mib: int = 0
    dirty: float | None = None
    disks: tuple[Disk, ...] | None = None


@dataclass(slots=True)
class Forecasts:
    """For one decision: what has been measured on a way is looked up once. `gauges`: by vm_id."""

    view: View
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    _ways: dict[tuple[str, str], list[Operation]] = field(default_factory=dict)

    def of_plan(self, planned: Plan) -> Prediction | None:
        """Of a live move, and of disks that go along with a VM that is off; how long other kinds
        take is not predicted."""
        if planned.kind is not MoveKind.LIVE:
            disks_alone = planned.kind.hands_over and planned.disks
            return self._of_disks(planned) if disks_alone else None
        of_memory = self.of(planned.record, planned.destination, planned.budget)
        return _with_disks(of_memory, sum(disk.used for disk in planned.disks))

    def of(self, record: VmRecord, destination: str, budget: Budget = DEFAULT) -> Prediction:
        """What its memory takes."""
        vm_id, source = record.vm.vm_id, record.location.server_id
        gauge = self.gauges.get(vm_id, Gauge())
        ends = {source, destination}
        own = self._newest(indexes.moved(vm_id), lambda o: {o.source, o.destination} == ends)
        alike = [move for move in own if _alike(_sampled(move), gauge.dirty)]
        if alike:
            return _as_before(alike, gauge.dirty)
        dirty = gauge.dirty if gauge.dirty is not None else _middle(own, _dirty, 0.0)
        size = record.vm.resources.memory_mib
        memory = float(min(gauge.memory_mib or size, size or gauge.memory_mib) << 20)
        expected = partial(course, budget=budget)
        return _by_course(self._way(source, destination), expected, memory, dirty, gauge.dirty)

    def _of_disks(self, planned: Plan) -> Prediction:
        """They travel as fast as memory did on this way. A VM that is shut down for its move is off
        all the time; how long its guest takes to end and to begin is its own affair."""
        way = self._way(planned.record.location.server_id, planned.destination)
        speed = _middle(way, _speed, BYTES_PER_SECOND)
        off = planned.kind is MoveKind.RESTART
        nothing = Prediction(
            total_ms=OVERHEAD_MS,
            downtime_ms=0.0,
            bytes_per_second=speed,
            dirty_bytes_per_second=0.0,
            basis=Basis.MEASURED if way else Basis.ASSUMED,
        )
        predicted = _with_disks(nothing, sum(disk.used for disk in planned.disks))
        return replace(predicted, downtime_ms=predicted.total_ms if off else 0.0)

    def _way(self, source: str, destination: str) -> list[Operation]:
        way = source, destination
        if way not in self._ways:
            self._ways[way] = self._newest(indexes.went(*way), lambda _: True)
        return self._ways[way]

    def _newest(self, tag: indexes.Tag, fits: Callable[[Operation], bool]) -> list[Operation]:
        moves = self.view.all(Operation, tag)
        live = (move for move in moves if move.move_kind is MoveKind.LIVE)
        measured = (move for move in live if _is_measured(move) and fits(move))
        return sorted(measured, key=lambda move: (-move.ended_ms, move.operation_id))[:LAST]


def _as_before(moves: list[Operation], sampled: float | None) -> Prediction:
    return Prediction(
        total_ms=_middle(moves, _of_memory_ms),
        downtime_ms=_middle(moves, lambda m: m.receipt.downtime_ms),
        bytes_per_second=_middle(moves, _speed),
        dirty_bytes_per_second=_middle(moves, _dirty),
        sampled=sampled,
        basis=Basis.ALIKE,
    )


def _with_disks(of_memory: Prediction, size: int) -> Prediction:
    """They travel first, on the same way."""
    more_ms = size / of_memory.bytes_per_second * 1000
    return replace(of_memory, total_ms=of_memory.total_ms + more_ms, disk_bytes=size)


def _by_course(
    way: list[Operation],
    goes: Callable[[float, float, float], Course],
    memory: float,
    dirty: float,
    sampled: float | None,
) -> Prediction:
    speed = _middle(way, _speed, BYTES_PER_SECOND)
    expected = goes(memory, dirty, speed)
    besides = _middle(way, lambda m: _of_memory_ms(m) - _course(m).travel_ms, OVERHEAD_MS)
    still = _middle(way, lambda m: m.receipt.downtime_ms - _course(m).still_ms, STILL_MS)
    return Prediction(
        total_ms=expected.travel_ms + max(besides, 0.0),
        downtime_ms=expected.still_ms + max(still, 0.0),
        bytes_per_second=speed,
        dirty_bytes_per_second=dirty,
        sampled=sampled,
        basis=Basis.MEASURED if way and sampled is not None else Basis.ASSUMED,
    )


def _course(move: Operation) -> Course:
    """What the same rule says of a move that was measured: the difference is what it leaves out."""
    done = move.receipt
    sent = done.bytes - done.disk_bytes
    again = done.dirty_bytes_per_second * sent / done.bytes_per_second
    return course(max(sent - again, 0.0), _dirty(move), _speed(move), move.budget)


def _of_memory_ms(move: Operation) -> float:
    """Of its time, what was not for disks."""
    done = move.receipt
    return max(done.total_ms - done.disk_bytes / done.bytes_per_second * 1000, 0.0)


def _alike(then: float | None, now: float | None) -> bool:
    """Where nobody has looked now, the guest is taken to do what it did."""
    if then is None or now is None:
        return now is None
    low, high = sorted((then, now))
    return high < QUIET or high <= low * ALIKE


def _sampled(move: Operation) -> float | None:
    return move.predicted.sampled if move.predicted is not None else None


def _is_measured(move: Operation) -> bool:
    """Its last figures have come, too: a moment after its end, or never."""
    return _speed(move) > 0 and move.receipt.downtime_ms > 0


def _speed(move: Operation) -> float:
    return move.receipt.bytes_per_second


def _dirty(move: Operation) -> float:
    return move.receipt.dirty_bytes_per_second


def _middle(
    moves: Iterable[Operation], figure: Callable[[Operation], float], without: float = 0.0
) -> float:
    figures = [figure(move) for move in moves]
    return float(median(figures)) if figures else without
