"""What a move is expected to be, from what was measured."""

from __future__ import annotations

import pytest

from common.model.operation import Basis, Operation, Phase, PhaseTime, Prediction, Receipt
from common.model.vm import Location, Resources, Vm, VmRecord, VmState
from tests.support.nouns import vm_id
from vcenter.core import keys
from vcenter.core.forecast import BYTES_PER_SECOND, Forecasts, Gauge
from vcenter.core.precopy import course
from vcenter.core.table import Change, Table

MIB = 1 << 20
VM, OTHER = vm_id(1), vm_id(2)


def record(name: str = VM) -> VmRecord:
    vm = Vm(vm_id=name, resources=Resources(1, 1024))
    return VmRecord(vm, Location("h1", VmState.RUNNING, 1), changed_ms=1)


def moved(number: int, name: str = VM, sampled: float | None = 0.0, **figures: float) -> Operation:
    receipt = Receipt(
        total_ms=figures.get("total", 2_000.0),
        downtime_ms=figures.get("still", 40.0),
        bytes=int(figures.get("sent", 500 * MIB)),
        bytes_per_second=figures.get("speed", 500.0 * MIB),
        dirty_bytes_per_second=figures.get("dirty", 0.0),
    )
    return Operation(
        operation_id=vm_id(100 + number),
        kind="relocate",
        vm_id=name,
        source="h1",
        destination="h2",
        phase=Phase.SUCCEEDED,
        requested_by="operator/alice",
        created_ms=number,
        ended_ms=number,
        epoch_before=1,
        phases=(PhaseTime(Phase.SUCCEEDED, number),),
        receipt=receipt,
        predicted=Prediction(0.0, 0.0, 0.0, 0.0, sampled),
    )


def forecast(*past: Operation, dirty: float | None = 0.0) -> Prediction:
    table = Table()
    table.apply(1, [Change(keys.operation(o.operation_id), o) for o in past])
    return Forecasts(table, {VM: Gauge(500, dirty)}).of(record(), "h2")


def test_an_idle_guest_travels_once_and_stands_still_for_nothing() -> None:
    seen = course(1000.0 * MIB, 0.0, 100.0 * MIB)
    assert (seen.travel_ms, seen.still_ms) == (10_000.0, 0.0)


def test_each_round_carries_what_was_written_in_the_one_before() -> None:
    """A tenth of the speed: 10 s, 1 s, 0.1 s; 10 ms fit into the 20 ms that are allowed by then."""
    seen = course(1000.0 * MIB, 10.0 * MIB, 100.0 * MIB)
    assert seen.travel_ms == pytest.approx(11_110)
    assert seen.still_ms == pytest.approx(10)


def test_a_guest_that_writes_faster_than_the_link_carries_is_slowed_down_until_it_fits() -> None:
    seen = course(1000.0 * MIB, 400.0 * MIB, 100.0 * MIB)
    assert 0 < seen.still_ms <= 600
    assert seen.travel_ms > course(1000.0 * MIB, 80.0 * MIB, 100.0 * MIB).travel_ms


@pytest.mark.parametrize("dirty", [0.0, 1.0, 50.0, 99.0, 101.0, 1e6])
def test_a_course_ends_whatever_the_guest_does(dirty: float) -> None:
    seen = course(64.0 * MIB, dirty * MIB, 100.0 * MIB)
    assert 0 <= seen.still_ms <= 641 and seen.still_ms <= seen.travel_ms < 60_000


def test_without_any_measurement_it_says_that_it_assumes() -> None:
    found = forecast(dirty=None)
    assert found.basis is Basis.ASSUMED and found.bytes_per_second == BYTES_PER_SECOND
    assert found.total_ms > 500 * MIB / BYTES_PER_SECOND * 1000


def test_what_happened_on_this_way_while_the_guest_did_as_now_is_expected_again() -> None:
    past = [moved(n, total=t, still=s) for n, t, s in ((1, 900, 30), (2, 1000, 40), (3, 5000, 90))]
    found = forecast(*past)
    assert (found.total_ms, found.downtime_ms) == (1000, 40)
    assert found.basis is Basis.ALIKE


def test_only_the_last_moves_count() -> None:
    old = [moved(n, total=60_000.0) for n in range(10)]
    new = [moved(20 + n, total=1_000.0) for n in range(5)]
    assert forecast(*old, *new).total_ms == 1_000


def test_a_guest_that_writes_otherwise_than_then_is_computed_from_this_ways_speed() -> None:
    """It took 1 s of travel and 1 s besides; writing at half of the speed takes about twice the
    travel, and the second besides stays."""
    idle = forecast(moved(1), dirty=0.0)
    busy = forecast(moved(1), dirty=250.0 * MIB)
    assert (idle.basis, busy.basis) == (Basis.ALIKE, Basis.MEASURED)
    assert idle.total_ms == 2_000
    assert busy.total_ms == pytest.approx(1_000 + 2_000, rel=0.1)
    assert busy.downtime_ms > idle.downtime_ms
    assert (busy.sampled, busy.bytes_per_second) == (250.0 * MIB, 500.0 * MIB)


def test_another_vms_moves_say_how_fast_the_way_is_and_no_more() -> None:
    found = forecast(moved(1, OTHER, speed=250.0 * MIB, sent=250.0 * MIB, total=1_500.0))
    assert found.bytes_per_second == 250.0 * MIB
    assert found.basis is Basis.MEASURED
    assert found.total_ms == pytest.approx(2_000 + 500)


def test_what_no_hypervisor_measured_is_no_experience() -> None:
    assert forecast(moved(1, speed=0.0)).basis is Basis.ASSUMED


def test_a_sample_that_is_missing_takes_the_guest_to_do_what_it_did() -> None:
    found = forecast(moved(1, sampled=100.0 * MIB), dirty=None)
    assert found.basis is Basis.ALIKE and found.sampled is None


def test_a_move_that_nobody_sampled_is_not_taken_for_one_like_this() -> None:
    assert forecast(moved(1, sampled=None), dirty=0.0).basis is Basis.MEASURED


def test_a_move_whose_last_figures_have_not_come_is_not_one_that_was_measured() -> None:
    whole = moved(1, total=3_000.0, still=70.0)
    assert forecast(whole, moved(2, still=0.0)) == forecast(whole)
