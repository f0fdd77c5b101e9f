"""A part of the crash matrix (`./scripts/crash-matrix` has all of it): kill -9 at a move's
boundaries leaves one owner, by virsh's word and the guest's heartbeat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.faults.crash_matrix import Cell, Matrix
from deploy.faults.crash_rig import rig

CELLS = [
    Cell("vcenter", "copied-50%"),
    Cell("source-agent", "copied-50%"),
    Cell("destination-agent", "copied-50%"),
    Cell("vcenter", "switching"),
    Cell("source-agent", "switching"),
    Cell("destination-agent", "switching"),
    Cell("vcenter", "settling"),
    Cell("source-agent", "preparing"),
    Cell("destination-agent", "settling"),
    Cell("vcenter", "aborting"),
    Cell("destination-qemu", "copied-50%"),
    Cell("source-qemu", "copied-50%"),
]


@pytest.fixture(scope="module")
def matrix(hosts_available: None) -> Iterator[Matrix]:
    with rig() as made:
        yield Matrix(made)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.victim}-{cell.moment}")
def test_a_kill_leaves_one_owner(matrix: Matrix, cell: Cell) -> None:
    outcome = matrix.run(cell)
    print(outcome)
    assert not outcome.problem
