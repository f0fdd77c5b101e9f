"""A part of the cut matrix (`./scripts/cut-matrix` has all of it): the line between two domains is
cut at a boundary of a move from one to the other, and one of them has the guest, in the end as
meanwhile, by virsh's word and the guest's heartbeat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.faults.cut_matrix import Cell, Matrix
from deploy.faults.cut_rig import rig
from deploy.faults.heart import twice

LASTS_S = 3.0
CELLS = [
    Cell("both", "copying"),
    Cell("to-source", "switching"),
    Cell("to-destination", "settling"),
]


@pytest.fixture(scope="module")
def matrix(hosts_available: None) -> Iterator[Matrix]:
    with rig() as made:
        yield Matrix(made, LASTS_S)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.way}-{cell.moment}")
def test_a_cut_leaves_one_owner(matrix: Matrix, cell: Cell) -> None:
    outcome = matrix.run(cell)
    print(outcome)
    assert not outcome.problem


def test_a_beat_from_two_guests_is_heard_twice() -> None:
    assert not twice([(1, 7), (1, 8), (2, 9), (1, 10)])
    assert twice([(1, 7), (1, 8), (2, 8)]) == [8]
    assert twice([(1, 7), (2, 8), (2, 9), (2, 8)]) == [8]
