"""Three hundred stories without a violation; the same seed is the same story; mutants caught."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.simulation.story import FAULTS, tell
from tests.simulation.mutants import MUTANTS, Mutant, Outdated, mutated
from tests.simulation.mutation import in_a_process

ROOT = Path(__file__).parents[2]
AT_ONCE = (  # all of them: ./scripts/simulate --mutants
    "acknowledge before fsync",
    "keep the epoch at the switch",
    "open the port first",
    "skip the source check at the switch",
    "resume what should be thrown away",
    "call lost what its source holds",
)


def simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("world", "seeds"), [("one", 200), ("gated", 100)])
def test_nothing_that_must_always_hold_is_violated(world: str, seeds: int) -> None:
    done = simulate("--world", world, "--seeds", str(seeds), "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout


@pytest.mark.parametrize(("world", "seeds"), [("one", 2), ("gated", 1)])
def test_the_same_seed_gives_the_same_event_log_byte_for_byte(world: str, seeds: int) -> None:
    which = ("--world", world, "--from", "7", "--seeds", str(seeds), "--jobs", "1", "--log")
    first, second = (simulate(*which, hash_seed=hash_seed) for hash_seed in ("1", "2"))
    lines = [done.stdout.splitlines() for done in (first, second)]
    kept = [[line for line in each if " seeds in " not in line] for each in lines]
    assert len(kept[0]) > 200 and kept[0] == kept[1]


def test_a_story_is_full_of_trouble_and_of_moves() -> None:
    told = tell(11)
    assert told.faults >= FAULTS[0] >= 20
    assert sum(told.moves.values()) >= 3 and told.violations == ()


def test_there_are_enough_mutants_and_each_is_another_defect() -> None:
    assert len(MUTANTS) >= 20
    assert len({m.name for m in MUTANTS}) == len({(m.module, m.old, m.new) for m in MUTANTS})
    assert set(AT_ONCE) <= {m.name for m in MUTANTS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_still_fits_the_code(mutant: Mutant) -> None:
    spec = find_spec(mutant.module)
    assert spec is not None and spec.origin is not None
    compile(mutated(mutant, Path(spec.origin).read_text()), spec.origin, "exec")


def test_a_mutant_that_does_not_fit_fails_loudly() -> None:
    with pytest.raises(Outdated, match="2 times"):
        mutated(Mutant("x", "", "m", "a", "b"), "a = a")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", AT_ONCE)
def test_a_mutant_is_caught(name: str) -> None:
    assert in_a_process(name, 40)
