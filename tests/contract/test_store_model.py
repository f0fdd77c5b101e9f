"""Any history of calls to any store agrees with a model of plain dicts and lists."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.contract.test_store import KINDS, content, history, make_store
from vcenter.store.port import (
    Batch,
    Compacted,
    Conflict,
    Entry,
    Put,
    Record,
    Store,
)

KEYS = st.sampled_from(["a", "b", "vm/1", "vm/2"])
PUTS = st.lists(st.builds(Put, KEYS, st.none() | st.binary(max_size=4)), max_size=3)
# Revisions stay small in a short run: small guesses hit the truth often enough.
BATCHES = st.builds(Batch, PUTS, st.dictionaries(KEYS, st.integers(0, 8), max_size=2))


class Against(RuleBasedStateMachine):
    """Any history of calls agrees with plain dicts and lists."""

    make: Callable[[], Store]

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.store = type(self).make()
        self.runner.run(self.store.open())
        self.current: dict[str, tuple[bytes, int]] = {}
        self.log: list[Entry] = []
        self.compacted = 0

    def _model(self, batch: Batch, at_ms: int) -> int | None:
        if any(self.current.get(k, (b"", 0))[1] != want for k, want in batch.expected.items()):
            return None
        revision = len(self.log) + 1
        self.log.append(Entry(revision, tuple(batch.puts), at_ms))
        for change in batch.puts:
            if change.value is None:
                self.current.pop(change.key, None)
            else:
                self.current[change.key] = (change.value, revision)
        return revision

    @rule(group=st.lists(BATCHES, max_size=4), at_ms=st.integers(0, 50))
    def append(self, group: list[Batch], at_ms: int) -> None:
        wanted = [self._model(batch, at_ms) for batch in group]
        got = self.runner.run(self.store.append(group, at_ms))
        assert [None if isinstance(one, Conflict) else one for one in got] == wanted

    @rule(before_ms=st.integers(0, 50))
    def compact(self, before_ms: int) -> None:
        while self.compacted < len(self.log) and self.log[self.compacted].at_ms < before_ms:
            self.compacted += 1
        assert self.runner.run(self.store.compact(before_ms)) == self.compacted

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.runner.run(self.store.open())

    @rule(after=st.integers(-1, 20))
    def read(self, after: int) -> None:
        try:
            got = self.runner.run(history(self.store, after))
        except Compacted as gone:
            assert gone.revision == self.compacted > after
            return
        assert got == self.log[max(after, 0) :]
        assert not got or max(after, 0) >= self.compacted

    @rule(key=KEYS, revision=st.integers(0, 20))
    def was(self, key: str, revision: int) -> None:
        try:
            got = self.runner.run(self.store.value_at(key, revision))
        except Compacted as gone:
            assert gone.revision == self.compacted > revision
            return
        states = [
            (e.revision, p.value) for e in self.log[:revision] for p in e.puts if p.key == key
        ]
        written, value = states[-1] if states else (0, None)
        assert got == (None if value is None else Record(key, value, written))
        newest = self.runner.run(self.store.versions(key, 3))
        kept = {e.revision: p.value for e in self.log for p in e.puts if p.key == key}
        began = [r for r, v in kept.items() if r <= self.compacted][-1:]
        wanted = [r for r in kept if r > self.compacted or (r in began and kept[r] is not None)]
        assert [(v.revision, v.value) for v in newest] == [(r, kept[r]) for r in wanted[::-1][:3]]

    @rule()
    def snapshot(self) -> None:
        got = self.runner.run(content(self.store))
        assert got == [Record(k, *held) for k, held in sorted(self.current.items())]
        assert self.runner.run(self.store.revision()) == len(self.log)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_agrees_with_a_model(
    kind: str, tmp_path: Path, etcd_or_none: str | None
) -> None:
    folders = iter(range(10**6))

    def make() -> Store:
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        return make_store(kind, folder, etcd_or_none)

    machine = type("Machine", (Against,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
