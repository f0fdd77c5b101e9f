"""The store itself: what the port promises, in terms of the log and of etcd's own history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from common.clock import Clock
from common.pb.etcd import rpc_pb2 as pb
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.address import Address
from vcenter.store.etcd.appending import Appending
from vcenter.store.etcd.following import Following
from vcenter.store.etcd.layout import Keys, entries_of, read_head, read_held, until
from vcenter.store.etcd.mail import Mail
from vcenter.store.etcd.opened import Opened
from vcenter.store.etcd.replica import Presence
from vcenter.store.port import (
    Batch,
    Compacted,
    Conflict,
    Entry,
    Piece,
    Record,
    Version,
    in_hand,
)

T = TypeVar("T")

_SNAPSHOT_KEYS = 2048


class EtcdStore:
    """One replica's part of a ledger that several share. Writes go one after the other, each in a
    task of its own: a caller that is cancelled leaves, its write does not."""

    def __init__(self, address: Address, clock: Clock, name: str = "") -> None:
        self._address = address
        self._clock = clock
        self.name = name or str(uuid4())
        self._parts: tuple[Opened, Appending, Following] | None = None
        self._writes: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        if self._parts:
            raise RuntimeError("the store is already open")
        opened = Opened(self._address, self.name, self._clock)
        await opened.open()
        appending = Appending(opened, self._clock)
        self._parts = opened, appending, Following(opened, self.read, self._clock)

    async def close(self) -> None:
        """Waits for the writes under way, and says goodbye to the other replicas."""
        parts, self._parts = self._parts, None
        if parts:
            parts[1].close()
            await self._carry_through(self._close(parts[0]))

    async def append(
        self, batches: Sequence[Batch], at_ms: int, after: int | None = None
    ) -> list[int | Conflict]:
        _, appending, _ = self._use()
        return await self._carry_through(appending.append(batches, at_ms, after))

    async def revision(self) -> int:
        head, _ = await self._opened.log.head()
        return head.revision

    async def snapshot(self) -> AsyncIterator[Sequence[Record]]:
        """Read at one revision of etcd, page by page."""
        opened = self._opened
        _, answer = await opened.log.settled()
        for start, end in opened.keys.pieces():
            more = True
            while more:
                request = pb.RangeRequest(
                    key=start,
                    range_end=end,
                    limit=_SNAPSHOT_KEYS,
                    revision=answer.header.revision,
                )
                page = await opened.client.range(request)
                yield [*_records(opened.keys, page.kvs)]
                if more := page.more:
                    start = page.kvs[-1].key + b"\0"

    async def pieces(self) -> AsyncIterator[Piece]:
        async for page in self.snapshot():
            yield in_hand(page)

    async def read(self, after: int) -> AsyncIterator[Entry]:
        """Up to the revision that is last now; compaction may overtake a slow reader."""
        opened = self._opened
        head, _ = await opened.log.head()
        reached = max(after, 0)
        if reached >= head.revision:
            return
        async for run, _ in opened.log.runs(reached, head.revision):
            for entry in entries_of(run):
                if reached < entry.revision <= head.revision:
                    if entry.revision != reached + 1:
                        break
                    yield entry
                    reached = entry.revision
        if reached < head.revision:
            raise Compacted((await opened.history.begins()).compacted)

    def follow(self, after: int) -> AsyncIterator[Entry]:
        """What is committed after a revision, whoever commits it, for ever. Raises `Compacted`."""
        _, _, following = self._use()
        return following.after(after)

    async def look(self) -> tuple[int, list[str]]:
        """The last revision, and the names of the replicas that are alive, the oldest first."""
        opened = self._opened
        replicas = opened.keys.replicas
        asked = [etcd.get(opened.keys.head), etcd.get(replicas, until(replicas))]
        answer = await opened.client.transact(pb.TxnRequest(success=asked))
        alive = sorted(etcd.found(answer, 1), key=lambda kv: kv.create_revision)
        head = read_head(etcd.found(answer, 0)[0].value)
        return head.revision, [kv.value.decode() for kv in alive]

    def rewatch(self) -> None:
        """`follow` says nothing though there is something to say: listen to another member."""
        self._use()[2].again()

    # ---- what was ----

    async def compact(self, before_ms: int) -> int:
        return await self._carry_through(self._opened.history.compact(before_ms))

    async def since_ms(self) -> int:
        return (await self._opened.history.begins()).since_ms

    async def revision_at(self, at_ms: int) -> int:
        return await self._opened.history.revision_at(at_ms)

    async def value_at(self, key: str, revision: int) -> Record | None:
        return await self._opened.history.value_at(key, revision)

    async def versions(self, key: str, limit: int) -> list[Version]:
        return await self._opened.history.versions(key, limit)

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        return await self._opened.history.mentions(prefix, text, until)

    @property
    def mail(self) -> Mail:
        """To and from the other replicas."""
        return self._opened.mail

    @property
    def presence(self) -> Presence:
        """Whether, and since when, the other replicas take this one for alive."""
        return self._opened.presence

    @property
    def _opened(self) -> Opened:
        return self._use()[0]

    def _use(self) -> tuple[Opened, Appending, Following]:
        if not self._parts:
            raise RuntimeError("the store is not open")
        return self._parts

    async def _close(self, opened: Opened) -> None:
        pending = self._writes - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending)
        await opened.close()

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)


def _records(keys: Keys, pairs: Iterable[Any]) -> Iterator[Record]:
    """Of a page of a range, without what was deleted."""
    for kv in pairs:
        held = read_held(kv.value)
        if held.value is not None:
            yield Record(keys.name_of(kv.key), held.value, held.revision)
