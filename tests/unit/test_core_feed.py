"""The feed: in revision order, gap-free, and whoever cannot keep up is told so (I4)."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from common.model.server import Group, Tenant
from vcenter.core.table import Change, Table
from vcenter.ledger.feed import Feed, Lagging


def publish(feed: Feed, *revisions: int) -> None:
    for revision in revisions:
        feed.publish(revision, [Change("tenant/a", Tenant(f"t{revision}"))])


async def test_the_table_is_first_then_listeners_then_subscribers() -> None:
    feed = Feed(Table())
    seen: list[int] = []
    feed.listen(lambda committed: seen.append(feed.table.revision))
    with feed.subscribe() as subscription:
        publish(feed, 1, 2)
        assert seen == [1, 2]
        stream = aiter(subscription)
        first, second = await anext(stream), await anext(stream)
        assert (first.revision, second.revision) == (1, 2)
        assert second.changes[0].before == Tenant("t1", revision=1)
        assert second.changes[0].after == Tenant("t2", revision=2)


async def test_a_listener_hears_of_the_kinds_that_it_asked_for() -> None:
    feed, heard = Feed(Table()), list[tuple[str, int]]()
    feed.listen(lambda committed: heard.append(("tenants", committed.revision)), Tenant)
    feed.listen(lambda committed: heard.append(("groups", committed.revision)), Group)
    feed.listen(lambda committed: heard.append(("all", committed.revision)))
    feed.publish(1, [Change("tenant/a", Tenant("a"))])
    feed.publish(2, [Change("tenant/b", Tenant("b")), Change("group/a/g", Group("a", "g"))])
    feed.publish(3, [Change("group/a/g", None)])
    assert [who for who, revision in heard if revision == 1] == ["tenants", "all"]
    assert [who for who, revision in heard if revision == 2] == ["tenants", "groups", "all"]
    assert [who for who, revision in heard if revision == 3] == ["groups", "all"]


async def test_limits_count_changes_but_one_batch_always_fits() -> None:
    feed = Feed(Table(), ring=3)
    pair = [Change("tenant/a", Tenant("a")), Change("tenant/b", Tenant("b"))]
    with feed.subscribe(limit=1) as slow, feed.subscribe(limit=4) as quick:
        feed.publish(1, pair)
        assert [c.revision for c in feed.since(0) or ()] == [1]
        stream = aiter(slow)
        assert (await anext(stream)).revision == 1
        feed.publish(2, pair)
        assert feed.since(0) is None and [c.revision for c in feed.since(1) or ()] == [2]
        feed.publish(3, pair)
        with pytest.raises(Lagging):
            await anext(stream)
        with pytest.raises(Lagging):
            await anext(aiter(quick))


async def test_a_subscriber_waits_for_what_comes() -> None:
    feed = Feed(Table())
    with feed.subscribe() as subscription:
        coming = asyncio.ensure_future(anext(aiter(subscription)))
        await asyncio.sleep(0)
        assert not coming.done()
        publish(feed, 1)
        assert (await coming).revision == 1


async def test_a_slow_reader_is_cut_off_and_holds_up_nobody() -> None:
    feed = Feed(Table())
    with feed.subscribe(limit=2) as slow, feed.subscribe() as quick:
        publish(feed, 1, 2, 3)
        stream = aiter(quick)
        assert [(await anext(stream)).revision for _ in range(3)] == [1, 2, 3]
        with pytest.raises(Lagging):
            await anext(aiter(slow))


async def test_nothing_is_missed_between_what_was_and_what_comes() -> None:
    feed = Feed(Table())
    publish(feed, 1, 2, 3)
    with feed.subscribe() as subscription:
        missed = feed.since(1)
        publish(feed, 4)
        assert missed is not None
        coming = await anext(aiter(subscription))
        revisions = [committed.revision for committed in [*missed, coming]]
    assert revisions == [2, 3, 4]
    assert all(b == a + 1 for a, b in pairwise(revisions))


async def test_what_is_not_remembered_is_said_to_be_so() -> None:
    feed = Feed(Table(), ring=2)
    assert feed.since(0) == []
    assert feed.since(1) is None, "a revision that has not been"
    publish(feed, 1, 2, 3)
    assert feed.since(0) is None
    assert [c.revision for c in feed.since(1) or ()] == [2, 3]
    assert feed.since(3) == []


async def test_after_a_start_only_the_present_is_known() -> None:
    table = Table()
    table.apply(50, [])
    feed = Feed(table)
    assert feed.since(49) is None and feed.since(50) == []
    publish(feed, 51)
    assert feed.since(49) is None
    assert [c.revision for c in feed.since(50) or ()] == [51]
