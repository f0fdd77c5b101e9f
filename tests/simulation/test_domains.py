"""Several vCenters, above and beside each other: seeds without a violation, and mutants."""

from __future__ import annotations

import pytest

from deploy.simulation.journal import Journal
from deploy.simulation.journey import tell
from deploy.simulation.loop import VirtualLoop
from deploy.simulation.severed import Severed
from deploy.simulation.telling import told
from tests.simulation.mutation import in_a_process
from tests.simulation.test_simulation import simulate

SEEDS = 300  # three levels and three peers by turns; more: ./scripts/simulate --world domains
AT_ONCE = (  # each shows in one of the first stories
    "keep the epoch at the handover",
    "pass off what was heard as one's own",
)


@pytest.mark.timeout(900)
def test_nothing_is_violated_across_domains() -> None:
    done = simulate("--world", "domains", "--seeds", str(SEEDS), "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout


@pytest.mark.timeout(300)
def test_the_same_seed_gives_the_same_event_log_byte_for_byte() -> None:
    first, second = (
        simulate("--world", "domains", "--seeds", "1", "--from", "5", "--log", hash_seed=hash_seed)
        for hash_seed in ("1", "2")
    )
    lines = [done.stdout.splitlines() for done in (first, second)]
    kept = [[line for line in each if " seeds in " not in line] for each in lines]
    assert len(kept[0]) > 100 and kept[0] == kept[1]


@pytest.mark.timeout(300)
def test_a_story_is_full_of_trouble_and_of_moves_between_domains() -> None:
    ended = tell(5)
    assert ended.faults >= 8 and ended.violations == ()
    taken = [line for line in ended.lines if " ledger " in line and "/" in line]
    assert len(taken) >= 3, "given to another domain"


@pytest.mark.timeout(300)
def test_a_domain_that_was_cut_off_for_ten_minutes_agrees_with_all_ten_seconds_later() -> None:
    """While VMs came, went and moved on both sides: no operation is lost, and nothing stale was
    called anything else."""
    stories: list[Severed] = []

    def make(seed: int, loop: VirtualLoop, journal: Journal) -> Severed:
        stories.append(Severed(seed, loop, journal))
        return stories[0]

    ended = told(1, make, keep=False)
    assert ended.violations == () and ended.seconds > 600
    assert ended.moves["succeeded"] >= 5 and stories[0].seconds <= 10
    assert all(stories[0].done.count(what) >= 5 for what in ("come", "gone", "tried across"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", AT_ONCE)
def test_a_mutant_is_caught(name: str) -> None:
    assert in_a_process(name, 8)
