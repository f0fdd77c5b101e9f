"""`./scripts/cold-matrix`: kill -9 of a daemon while the disk of a VM that is off travels, or right
after the ledger's switch, leaves one host with the VM, and its disk whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.faults.cold_matrix import Cell, Matrix, cells
from deploy.faults.crash_rig import rig


@pytest.fixture(scope="module")
def matrix(hosts_available: None) -> Iterator[Matrix]:
    with rig() as made:
        yield Matrix(made)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell.victim}-{cell.moment}")
def test_a_kill_leaves_one_host_with_the_whole_disk(matrix: Matrix, cell: Cell) -> None:
    outcome = matrix.run(cell)
    print(outcome)
    assert not outcome.problem
