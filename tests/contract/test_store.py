"""What every store must do: memory, SQLite and a real etcd pass the same suite."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from common.clock import SystemClock
from vcenter.store.etcd import EtcdStore, parse_address
from vcenter.store.memory import MemoryStore
from vcenter.store.port import (
    Batch,
    Compacted,
    Conflict,
    Entry,
    Put,
    Record,
    Store,
    Version,
)
from vcenter.store.sqlite import SqliteStore

# `etcd`: the address of the cluster that the whole module shares; every store has its own prefix.
KINDS: dict[str, Callable[[Path, str], Store]] = {
    "memory": lambda folder, etcd: MemoryStore(),
    "sqlite": lambda folder, etcd: SqliteStore(folder / "ledger.db"),
    "etcd": lambda folder, etcd: EtcdStore(parse_address(f"{etcd}/t{uuid4()}"), SystemClock()),
}


def make_store(kind: str, folder: Path, etcd: str | None) -> Store:
    if kind == "etcd" and etcd is None:
        pytest.skip("etcd is not installed: scripts/setup installs it")
    return KINDS[kind](folder, etcd or "")


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, etcd_or_none: str | None
) -> AsyncIterator[Store]:
    made = make_store(request.param, tmp_path, etcd_or_none)
    await made.open()
    yield made
    await made.close()


def put(key: str, value: bytes | None, **expected: int) -> Batch:
    return Batch((Put(key, value),), expected)


async def history(store: Store, after: int = 0) -> list[Entry]:
    return [entry async for entry in store.read(after)]


async def content(store: Store) -> list[Record]:
    """By key."""
    return sorted([record async for page in store.snapshot() for record in page])


async def test_an_empty_store_is_at_revision_zero(store: Store) -> None:
    assert await store.revision() == 0
    assert await content(store) == []
    assert await history(store) == []
    assert await store.append([], 1) == []


async def test_each_batch_gets_the_next_revision(store: Store) -> None:
    assert await store.append([put("a", b"1"), put("b", b"2")], 10) == [1, 2]
    assert await store.append([Batch((Put("a", b"3"), Put("c", b"")), {})], 11) == [3]
    assert await store.revision() == 3
    assert await content(store) == [Record("a", b"3", 3), Record("b", b"2", 2), Record("c", b"", 3)]
    assert await history(store, 1) == [
        Entry(2, (Put("b", b"2"),), 10),
        Entry(3, (Put("a", b"3"), Put("c", b"")), 11),
    ]


async def test_a_conflict_writes_nothing_and_leaves_the_others_alone(store: Store) -> None:
    await store.append([put("a", b"1")], 1)
    torn = Batch((Put("x", b"no"), Put("a", b"no")), {"a": 7})
    first, refused, last = await store.append([put("b", b"2"), torn, put("c", b"3")], 2)
    assert (first, last) == (2, 3)
    assert isinstance(refused, Conflict)
    assert "a" in str(refused)
    assert [record.key for record in await content(store)] == ["a", "b", "c"]


async def test_expected_zero_means_absent(store: Store) -> None:
    made, again = await store.append([put("a", b"1", a=0), put("a", b"2", a=0)], 1)
    assert made == 1
    assert isinstance(again, Conflict)
    (late,) = await store.append([put("a", b"3", a=0)], 2)
    assert isinstance(late, Conflict)


async def test_later_batches_see_earlier_ones(store: Store) -> None:
    group = [put("a", b"1", a=0), put("a", b"2", a=1), put("a", None, a=2), put("a", b"4", a=0)]
    assert await store.append(group, 1) == [1, 2, 3, 4]
    assert await content(store) == [Record("a", b"4", 4)]


async def test_a_refused_batch_is_not_seen_by_later_ones(store: Store) -> None:
    refused, made = await store.append([put("a", b"1", b=9), put("a", b"2", a=0)], 1)
    assert isinstance(refused, Conflict)
    assert made == 1


async def test_a_batch_may_expect_keys_that_it_does_not_write(store: Store) -> None:
    await store.append([put(f"k{i}", b"v") for i in range(600)], 1)
    expected = {f"k{i}": i + 1 for i in range(600)} | {"none": 0}
    assert await store.append([Batch((Put("new", b"1"),), expected)], 2) == [601]
    (refused,) = await store.append([Batch((Put("new", b"2"),), expected | {"k599": 1})], 2)
    assert isinstance(refused, Conflict)


async def test_delete_removes_the_value_and_stays_in_history(store: Store) -> None:
    await store.append([put("a", b"1"), put("a", None), put("never", None)], 5)
    assert await content(store) == []
    assert [entry.puts[0].value for entry in await history(store)] == [b"1", None, None]


async def test_an_empty_batch_takes_a_revision(store: Store) -> None:
    assert await store.append([Batch((), {}), put("a", b"1"), Batch((), {})], 3) == [1, 2, 3]
    assert [entry.revision for entry in await history(store)] == [1, 2, 3]
    assert await store.revision() == 3


async def test_the_last_change_of_a_key_within_a_batch_counts(store: Store) -> None:
    changes = (Put("a", b"1"), Put("a", b"2"), Put("b", b"1"), Put("b", None))
    await store.append([Batch(changes, {})], 1)
    assert await content(store) == [Record("a", b"2", 1)]
    assert (await history(store))[0].puts == changes


async def test_keys_are_in_code_point_order(store: Store) -> None:
    keys = ["vm/b", "vm/a", "vm", "é", "\U0001f600", "\uffee", "Z", "a\0b", "a"]
    await store.append([put(key, b"v") for key in keys], 1)
    assert [record.key for record in await content(store)] == sorted(keys)
    expected = {key: revision for revision, key in enumerate(keys, 1)}
    assert await store.append([Batch((), expected)], 1) == [len(keys) + 1]


async def test_read_is_gap_free_over_many_pages(store: Store) -> None:
    for start in range(0, 3000, 500):
        await store.append([put(f"k{i % 7}", b"%d" % i) for i in range(start, start + 500)], start)
    assert [entry.revision for entry in await history(store)] == list(range(1, 3001))
    assert [entry.revision for entry in await history(store, 2998)] == [2999, 3000]
    assert await history(store, 3000) == await history(store, 9999) == []


async def test_compaction_drops_history_and_keeps_values(store: Store) -> None:
    for at_ms in (10, 20, 30):
        await store.append([put("a", b"%d" % at_ms), put("b", None)], at_ms)
    assert await store.compact(10) == 0
    assert await store.compact(30) == 4
    assert await store.compact(20) == 4
    assert [entry.revision for entry in await history(store, 4)] == [5, 6]
    with pytest.raises(Compacted) as gone:
        await history(store, 3)
    assert gone.value.revision == 4
    assert await content(store) == [Record("a", b"30", 5)]


async def test_compaction_of_everything_keeps_the_revision(store: Store) -> None:
    await store.append([put(f"k{i}", b"v") for i in range(5000)], 1)
    assert await store.compact(2) == 5000
    await store.close()
    await store.open()
    assert await store.revision() == 5000
    assert await history(store, 5000) == []
    with pytest.raises(Compacted):
        await history(store, 0)
    assert await store.append([put("k0", b"w", k0=1)], 1) == [5001]
    assert [entry.revision for entry in await history(store, 5000)] == [5001]


async def test_compaction_stops_at_the_first_young_entry_even_if_the_clock_stepped_back(
    store: Store,
) -> None:
    for at_ms in (10, 50, 20, 60):
        await store.append([put("a", b"%d" % at_ms)], at_ms)
    assert await store.compact(40) == 1
    assert [entry.revision for entry in await history(store, 1)] == [2, 3, 4]


async def test_a_reader_overtaken_by_compaction_is_told(store: Store) -> None:
    await store.append([put("a", b"%d" % i) for i in range(3000)], 1)
    reader = store.read(0)
    seen = [(await anext(reader)).revision]
    await store.compact(2)
    with pytest.raises(Compacted):
        async for entry in reader:
            seen.append(entry.revision)
    assert seen == list(range(1, len(seen) + 1))


async def test_a_snapshot_is_of_one_revision_while_appends_go_on(store: Store) -> None:
    keys = [f"k{i:05}" for i in range(5000)]
    whole = Batch([Put(key, b"old") for key in keys], {})
    await store.append([whole], 1)
    records = store.snapshot()
    seen = [*await anext(records)]
    await store.append([Batch([Put(key, b"new") for key in keys] + [Put("k", b"new")], {})], 2)
    await store.append([put("k04999", None)], 3)
    seen += [record async for page in records for record in page]
    assert sorted(seen) == [Record(key, b"old", 1) for key in keys]
    assert len(await content(store)) == 5000


async def test_a_snapshot_has_every_key_once_however_it_is_cut(store: Store) -> None:
    """Pages, and pieces by the first digit of a vm_id."""
    keys = ["a", "gone/1", "op/1", "vm/", "vm/0", "vm/00", "vm/9f", "vm/a", "vm/ff", "vm/g", "z"]
    keys += [f"vm/7{number:04}" for number in range(2_500)]
    await store.append([Batch([Put(key, b"1") for key in keys], {})], 1)
    assert [record.key for record in await content(store)] == sorted(keys)


@pytest.mark.parametrize("many", [0, 1, 8191, 8192, 8193, 20_000])
async def test_pieces_are_the_snapshot_wherever_they_are_read(store: Store, many: int) -> None:
    for start in range(0, many, 4096):
        puts = [Put(f"k{i:05}", b"%d" % i) for i in range(start, min(start + 4096, many))]
        await store.append([Batch(puts, {})], 1)
    gone = [Put(f"k{i:05}", None) for i in range(0, many, 3)]  # where they were, nothing is
    await store.append([Batch(gone, {})], 2)
    found = []
    async for piece in store.pieces():
        records = pickle.loads(pickle.dumps(piece.read))()
        assert len(records) <= piece.most
        found += [Record(*record) for record in records]
    assert sorted(found) == await content(store)
    assert len(found) == many - len(gone)


async def test_an_abandoned_snapshot_harms_nobody(store: Store) -> None:
    await store.append([put(f"k{i}", b"v") for i in range(5000)], 1)
    records = store.snapshot()
    await anext(records)
    await records.aclose()  # type: ignore[attr-defined]
    assert await store.append([put("a", b"1")], 2) == [5001]


async def test_concurrent_appends_are_kept_in_some_order(store: Store) -> None:
    tasks = [store.append([put(f"k{i}", b"v"), put("last", b"%d" % i)], i) for i in range(50)]
    revisions = {result for group in await asyncio.gather(*tasks) for result in group}
    assert revisions == set(range(1, 101))
    assert [entry.revision for entry in await history(store)] == list(range(1, 101))


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancelled_append_is_carried_through(store: Store, steps: int) -> None:
    """Cancelled after each of its first steps: kept whole, and the store goes on."""
    group = [Batch((Put("a", b"1"), Put("b", b"1")), {"a": 0}), put("c", b"1")]
    task = asyncio.create_task(store.append(group, 1))
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0.0002)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.append([put("d", b"1", a=1, b=1, c=2)], 2) == [3]
    await store.close()
    await store.open()
    assert [record.key for record in await content(store)] == ["a", "b", "c", "d"]


async def test_close_waits_for_appends_under_way(store: Store) -> None:
    tasks = [asyncio.create_task(store.append([put(f"k{i}", b"v")], 1)) for i in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert [await task for task in tasks] == [[i] for i in range(1, 21)]
    await store.open()
    assert await store.revision() == 20


async def test_reopening_keeps_everything(store: Store) -> None:
    await store.append([put("a", b"1"), put("b", b"2"), put("a", None)], 7)
    before = await content(store), await history(store), await store.revision()
    for _ in range(2):
        await store.close()
        await store.open()
    assert (await content(store), await history(store), await store.revision()) == before
    assert await store.append([put("b", b"3", b=2)], 8) == [4]


async def test_a_closed_store_refuses_work(store: Store) -> None:
    await store.close()
    with pytest.raises(RuntimeError):
        await store.append([put("a", b"1")], 1)
    with pytest.raises(RuntimeError):
        await store.revision()
    with pytest.raises(RuntimeError):
        await content(store)
    await store.close()


async def test_what_was_can_be_asked_for(store: Store) -> None:
    await store.append([put("a", b"1"), put("b", b"x"), put("a", b"2")], 10)
    await store.append([put("a", None), Batch((Put("a", b"4"), Put("a", b"5")), {})], 20)
    states = [await store.value_at("a", revision) for revision in range(6)]
    assert states == [
        None,
        Record("a", b"1", 1),
        Record("a", b"1", 1),
        Record("a", b"2", 3),
        None,
        Record("a", b"5", 5),
    ]
    changes = [Version(5, b"5", 20), Version(4, None, 20), Version(3, b"2", 10)]
    assert await store.versions("a", 3) == changes
    assert await store.versions("none", 3) == []
    assert [await store.revision_at(ms) for ms in (0, 9, 10, 15, 20, 99)] == [0, 0, 3, 3, 5, 5]
    assert await store.mentions("a", b"2", 5) == {"a"}
    assert await store.mentions("a", b"2", 2) == await store.mentions("a", b"x", 5) == set()


async def test_of_one_batch_the_last_word_counts_whatever_came_before(store: Store) -> None:
    await store.append([Batch((Put("a", None), Put("a", b"1")), {})], 10)
    await store.append([Batch((Put("b", b"1"), Put("b", None), Put("b", b"2")), {})], 20)
    await store.append([Batch((Put("c", b"1"), Put("c", None)), {}), put("c", b"3")], 30)
    assert await store.value_at("a", 1) == Record("a", b"1", 1)
    assert await store.versions("b", 9) == [Version(2, b"2", 20)]
    assert [await store.value_at("c", revision) for revision in (2, 3, 4)] == [
        None,
        None,
        Record("c", b"3", 4),
    ]


async def test_compaction_keeps_what_was_when_history_begins(store: Store) -> None:
    """Also of keys that changed long before it, whose only old value is about to be replaced."""
    await store.append([put("old", b"o1"), put("gone", b"g1"), put("a", b"a1")], 10)
    await store.append([put("a", b"a2")], 20)
    assert await store.compact(15) == 3 and await store.since_ms() == 10
    await store.append([put("old", b"o2"), put("gone", None, gone=2)], 30)
    at = {key: [await store.value_at(key, r) for r in (3, 4, 6)] for key in ("old", "gone", "a")}
    assert at == {
        "old": [Record("old", b"o1", 1)] * 2 + [Record("old", b"o2", 5)],
        "gone": [Record("gone", b"g1", 2)] * 2 + [None],
        "a": [Record("a", b"a1", 3)] + [Record("a", b"a2", 4)] * 2,
    }
    assert await store.versions("gone", 9) == [Version(6, None, 30), Version(2, b"g1", 0)]
    assert await store.mentions("gone", b"g1", 3) == {"gone"}
    for question in (store.value_at("a", 2), store.revision_at(9)):
        with pytest.raises(Compacted):
            await question
    assert await store.revision_at(10) == 3
    assert await store.compact(40) == 6
    assert [await store.value_at(key, 6) for key in ("old", "gone")] == [
        Record("old", b"o2", 5),
        None,
    ]
