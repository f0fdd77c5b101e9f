"""`scripts/watch-storm`, small: see `deploy/faults/watch_storm.py` for what it holds streams to."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deploy.faults.watch_storm import Broken, Ledgered, Storm, Watcher


async def test_streams_are_ordered_gap_free_or_told_to_resynchronize(tmp_path: Path) -> None:
    storm = Storm(tmp_path, watchers=12, seconds=5.0, seed=3)
    await storm.run()
    assert len(storm.truth.vms) > 100 and storm.truth.removed > 5 and storm.compactions > 3
    assert sum(reader.resumes for reader in storm.readers) > 20
    assert sum(reader.resyncs for reader in storm.readers) > 0


@pytest.mark.parametrize("heard", [{5, 7}, {5, 6, 7, 8}])
def test_a_gap_and_an_invention_are_found(heard: set[int]) -> None:
    truth = Ledgered({(r, f"vm-{r}"): "h" for r in (3, 5, 6, 7)}, {"vm-7": 7})
    writes = {(r, f"vm-{r}") for r in heard}
    watcher = Watcher(None, random.Random(0), "", began=3, heard=writes, state={"vm-7": 7})
    with pytest.raises(Broken):
        watcher.check(truth)
    watcher.heard = {(r, f"vm-{r}") for r in (5, 6, 7)}
    watcher.check(truth)
    watcher.state = {"vm-7": 6}
    with pytest.raises(Broken):
        watcher.check(truth)
