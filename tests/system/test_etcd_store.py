"""The store in a real etcd, where there is more than one of it, or something breaks midway."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from common.clock import SystemClock
from common.model.revision import generation
from common.pb.etcd import rpc_pb2 as pb
from deploy.etcd.members import Cluster
from vcenter.store.etcd import Address, EtcdStore, parse_address
from vcenter.store.etcd.client import Client, Unreachable
from vcenter.store.etcd.layout import Keys
from vcenter.store.etcd.log import Log
from vcenter.store.etcd.opened import Opened
from vcenter.store.etcd.plan import MAX_BYTES, MAX_KEYS, Run
from vcenter.store.port import Batch, Compacted, Conflict, Entry, Overtaken, Put, WriteFailed


@pytest.fixture
def address(etcd_address: str) -> Address:
    return parse_address(f"{etcd_address}/t{uuid4()}")


@pytest.fixture
async def stores(address: Address) -> AsyncIterator[list[EtcdStore]]:
    """Two replicas of one ledger."""
    async with AsyncExitStack() as stack:
        both = [EtcdStore(address, SystemClock(), name) for name in ("a", "b")]
        for store in both:
            await store.open()
            stack.push_async_callback(store.close)
        yield both


def one(key: str, value: bytes | None = b"v", **expected: int) -> Batch:
    return Batch((Put(key, value),), expected)


async def followed(store: EtcdStore, after: int, until: int) -> list[Entry]:
    entries = []
    async with asyncio.timeout(10):
        async for entry in store.follow(after):
            entries.append(entry)
            if entry.revision == until:
                break
    return entries


async def test_who_decided_on_an_old_state_writes_nothing(stores: list[EtcdStore]) -> None:
    a, b = stores
    assert await a.append([one("x"), one("y")], 1, after=0) == [1, 2]
    lost = await b.append([one("x"), one("z")], 2, after=0)
    assert [type(r) for r in lost] == [Overtaken, Overtaken]
    assert [r.revision for r in lost if isinstance(r, Overtaken)] == [2, 2]
    assert [e.revision for e in await followed(b, 0, 2)] == [1, 2]
    assert await b.append([one("z")], 3, after=2) == [3]
    assert [r.key async for page in a.snapshot() for r in page] == ["x", "y", "z"]


async def test_each_hears_what_the_other_writes_while_it_listens(stores: list[EtcdStore]) -> None:
    a, b = stores
    heard = asyncio.create_task(followed(b, 0, 60))
    for n in range(30):
        await (a, b)[n % 2].append([one(f"k{n}"), one("last", b"%d" % n)], n)
    entries = await heard
    assert [e.revision for e in entries] == list(range(1, 61))
    assert entries[-1].puts == (Put("last", b"29"),)


async def test_compare_and_set_holds_between_replicas(stores: list[EtcdStore]) -> None:
    """Both count the same keys up, each time from what they have read."""

    async def count(store: EtcdStore) -> int:
        won = 0
        for _ in range(40):
            held = {r.key: r async for page in store.snapshot() for r in page}
            for key in ("m", "n"):
                value = int(held[key].value) if key in held else 0
                expected = {key: held[key].revision if key in held else 0}
                batch = Batch((Put(key, b"%d" % (value + 1)),), expected)
                (result,) = await store.append([batch], 1)
                won += not isinstance(result, Conflict)
        return won

    won = sum(await asyncio.gather(*map(count, stores)))
    total = sum([int(record.value) async for page in stores[0].snapshot() for record in page])
    assert won == total == await stores[0].revision() > 40


async def test_a_batch_that_fits_into_no_transaction_is_still_one(
    stores: list[EtcdStore],
) -> None:
    a, b = stores
    puts = tuple(Put(f"k{n:04}", b"x" * 2000) for n in range(1000))
    assert sum(len(p.value or b"") for p in puts) > 3 * MAX_BYTES
    listening = asyncio.create_task(followed(b, 0, 3))
    assert await a.append([one("first"), Batch(puts, {}), one("k0000", b"new")], 1) == [1, 2, 3]
    assert (await listening)[1] == Entry(2, puts, 1)
    records = [record async for page in b.snapshot() for record in page]
    assert len(records) == 1001 and records[1].value == b"new" and records[2].revision == 2
    before = await b.value_at("k0000", 2)
    assert before is not None and before.value == b"x" * 2000


class Dies(Log):
    """A replica that ends after the commit of a large run, before the rest of the work."""

    async def settle(self) -> None:
        raise Unreachable("killed")


async def test_what_a_replica_left_unfinished_the_next_one_finishes(address: Address) -> None:
    dying = Opened(address, "dying", SystemClock())
    await dying.open()
    run = Run(1, 0)
    run.add([Put(f"k{n:03}", b"%d" % n) for n in range(3 * MAX_KEYS)])
    await Dies(dying.client, dying.keys, dying.presence, dying.pen).commit(dying.head, run, 1)
    held = await dying.client.range(pb.RangeRequest(key=dying.keys.now("k000")))
    assert not held.kvs
    store = EtcdStore(address, SystemClock())
    await store.open()
    assert len([r async for page in store.snapshot() for r in page]) == 3 * MAX_KEYS
    assert await store.append([one("k000", b"new", k000=1)], 2) == [2]
    await store.close()
    await dying.close()


async def test_a_replica_that_was_taken_for_dead_writes_nothing_until_it_is_alive_again(
    address: Address,
) -> None:
    store = EtcdStore(address, SystemClock(), "paused")
    await store.open()
    reborn = asyncio.Event()
    store.presence.reborn = reborn.set
    client = Client(address.members, SystemClock())
    (held,) = (await client.range(pb.RangeRequest(key=Keys(address.prefix).replica("paused")))).kvs
    revoke = pb.LeaseRevokeRequest(ID=held.lease)
    await client.call(lambda member: member.lease.LeaseRevoke, revoke)
    with pytest.raises(WriteFailed):
        await store.append([one("x")], 1)
    async with asyncio.timeout(5):
        await reborn.wait()
    assert await store.append([one("x")], 1) == [1]
    await client.close()
    await store.close()


async def test_a_restored_backup_begins_a_new_generation(tmp_path: Path) -> None:
    async with Cluster(tmp_path / "old", size=1) as old:
        store = EtcdStore(parse_address(old.address), SystemClock())
        await store.open()
        await store.append([one("a"), one("b"), one("a", None)], 1)
        backup = tmp_path / "backup.db"
        etcdctl(old, "snapshot", "save", str(backup))
        await store.append([one("forgotten")], 2)
        await store.close()
    new = Cluster(tmp_path / "new", size=1, token="restored")
    (member,) = new.members
    etcdctl(
        new,
        "snapshot",
        "restore",
        str(backup),
        f"--name={member.name}",
        f"--data-dir={member.folder}",
        f"--initial-cluster={new.peers}",
        f"--initial-cluster-token={new.token}",
        f"--initial-advertise-peer-urls={member.peer}",
    )
    async with new:
        for _ in range(2):
            store = EtcdStore(parse_address(new.address), SystemClock())
            await store.open()
            revision = await store.revision()
            assert generation(revision) == 1
            assert [(r.key, r.revision) async for page in store.snapshot() for r in page] == [
                ("b", 2)
            ]
            with pytest.raises(Compacted):
                [entry async for entry in store.read(3)]
            await store.close()
        await store.open()
        assert await store.append([one("b", b"w", b=2)], 3) == [revision + 1]
        assert [e.revision async for e in store.read(revision)] == [revision + 1]
        was = await store.value_at("b", revision)
        assert was is not None and was.value == b"v"
        await store.close()


def etcdctl(cluster: Cluster, *arguments: str) -> None:
    (member,) = cluster.members
    subprocess.run(
        ["etcdctl", f"--endpoints={member.address}", *arguments],
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
