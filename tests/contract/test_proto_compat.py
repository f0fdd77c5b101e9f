"""The contract changes only by additions, and the generated code is that of the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.proto_snapshot import broken, current, published

ROOT = Path(__file__).parents[2]


def test_nothing_that_was_published_has_changed() -> None:
    assert broken(published(), current()) == []


def test_additions_are_taken_into_the_snapshot() -> None:
    missing = sorted(current().items() - published().items())
    assert not missing, "run: python -m tests.contract.proto_snapshot --write"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"vsignal.v1.Vm 1": None}, "removed"),
        ({"vsignal.v1.Vm 1": None, "vsignal.v1.Vm 99": "string vm_id"}, "renumbered"),
        ({"vsignal.v1.Vm 1": "string uuid"}, "renamed"),
        ({"vsignal.v1.Vm 1": "bytes vm_id"}, "retyped"),
        ({"vsignal.v1.Vm 1": "repeated string vm_id"}, "repeated"),
        ({"vsignal.v1.VmState 1": "VM_STATE_RUNS"}, "an enum value renamed"),
        ({"vsignal.v1.Signaling/Report": None}, "a method removed"),
        ({"vsignal.v1.Directory/Watch": "(a) returns (b)"}, "a stream that is none any more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_that_breaks_clients_is_seen(change: dict[str, str | None], what: str) -> None:
    changed = {k: v for k, v in (published() | change).items() if v is not None}
    assert len(broken(published(), changed)) == 1


def test_an_addition_breaks_nobody() -> None:
    assert broken(published(), published() | {"vsignal.v1.Vm 99": "string new"}) == []


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run(
        [ROOT / "scripts" / "generate", tmp_path],
        env=environment,
        check=True,
        capture_output=True,
    )
    committed = ROOT / "common" / "pb"
    fresh = {p.relative_to(tmp_path) for p in tmp_path.rglob("*.py*") if p.is_file()}
    kept = {p.relative_to(committed) for p in committed.rglob("*.py*") if p.suffix != ".pyc"}
    assert fresh == kept
    different = [p for p in fresh if (tmp_path / p).read_text() != (committed / p).read_text()]
    assert different == [], "run scripts/generate"
