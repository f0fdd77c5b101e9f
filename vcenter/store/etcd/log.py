"""The end of the history: committing runs to it, and reading them back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from uuid import uuid4

from common.pb.etcd import rpc_pb2 as pb
from common.pb.vsignal.v1 import storage_pb2
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Refused, Unreachable
from vcenter.store.etcd.layout import (
    Head,
    Held,
    Keys,
    last_of,
    outcome_of,
    read_head,
    until,
    write_batches,
    write_held,
)
from vcenter.store.etcd.pen import Pen
from vcenter.store.etcd.plan import MAX_BYTES, Run, pieces
from vcenter.store.etcd.replica import Presence
from vcenter.store.port import WriteFailed

_PAGE_RUNS = 8
_DESCEND = pb.RangeRequest.DESCEND


class Log:
    """One run at a time is committed; the caller sees to that."""

    def __init__(self, client: Client, keys: Keys, presence: Presence, pen: Pen) -> None:
        self._client = client
        self._keys = keys
        self._presence = presence
        self._pen = pen

    # ---- writing ----

    async def commit(self, head: Head, run: Run, at_ms: int) -> Head | None:
        """The new end of the history, or None when somebody else has gone on from `head`.

        Repeated for as long as etcd gives no answer, which is safe: the second attempt finds its
        own token. Raises `Unreachable` when it is not known whether the run was committed.
        """
        token = uuid4().bytes
        new = Head(run.last, token)
        wire = storage_pb2.LogRun(first=run.first, at_ms=at_ms, token=token)
        await self._fill(wire, run)
        request = self._request(head, new, wire, run)
        while True:
            answer = await self._client.transact(request)
            if answer.succeeded:
                break
            if await self._lost(answer, head, token):
                return None
            if etcd.found(answer, 2):
                break  # our own attempt, whose answer did not reach us
        if not run.fits:
            with suppress(Unreachable, Refused):  # the next run, whoever's it is, goes on with it
                await self.settle()
        return new

    def _request(self, head: Head, new: Head, wire: storage_pb2.LogRun, run: Run) -> pb.TxnRequest:
        keys = self._keys
        success = [etcd.put(keys.head, new.encoded())]
        success.append(etcd.put(keys.log(run.first), wire.SerializeToString()))
        if run.fits:
            success += self._values(run.outcome.items())
        else:
            success.append(etcd.put(keys.redo, keys.log(run.first)))
        return pb.TxnRequest(
            compare=[
                etcd.is_value(keys.head, head.encoded()),
                etcd.is_absent(keys.redo),
                self._presence.is_alive(),
                self._pen.is_ours_to_write(),
            ],
            success=success,
            failure=[
                etcd.get(keys.head),
                etcd.get(keys.redo),
                etcd.get(keys.log(run.first)),
                etcd.get(self._presence.key),
                etcd.get(keys.pen),
            ],
        )

    async def _lost(self, answer: pb.TxnResponse, head: Head, token: bytes) -> bool:
        """Whether it is somebody else's turn. False: try again, or our own run is there."""
        ours = etcd.found(answer, 2)
        if ours and storage_pb2.LogRun.FromString(ours[0].value).token == token:
            return False
        (now,) = etcd.found(answer, 0)
        if ours or now.value != head.encoded():
            return True
        alive = etcd.found(answer, 3)
        if not alive or alive[0].create_revision != self._presence.life:
            self._presence.doubt()
            raise WriteFailed("this replica was taken for dead, and has to register again")
        if etcd.found(answer, 1):
            await self.settle()
            return False
        return True  # another replica has the pen

    async def _fill(self, wire: storage_pb2.LogRun, run: Run) -> None:
        """Into the run itself; or, where it is too large, into parts that go before it."""
        batches = write_batches(run.batches)
        if run.size <= MAX_BYTES:
            wire.batches.extend(batches)
            return
        whole = storage_pb2.LogRun(batches=batches).SerializeToString()
        for start in range(0, len(whole), MAX_BYTES):
            key = self._keys.part(run.first, wire.token, wire.parts)
            piece = whole[start : start + MAX_BYTES]
            await self._client.transact(pb.TxnRequest(success=[etcd.put(key, piece)]))
            wire.parts += 1

    def _values(self, outcome: Iterable[tuple[str, Held]]) -> list[pb.RequestOp]:
        now = self._keys.now
        return [etcd.put(now(key), write_held(h.revision, h.value)) for key, h in outcome]

    async def settle(self) -> None:
        """Finish a run whose values are not all in `now/`, whoever began it. May be done by
        several at once: each step compares that it is still to be done."""
        keys = self._keys
        (waiting,) = [await self._client.range(pb.RangeRequest(key=keys.redo))]
        if not waiting.kvs:
            return
        place = waiting.kvs[0].value
        found = await self._client.range(pb.RangeRequest(key=place))
        run = await self.whole(storage_pb2.LogRun.FromString(found.kvs[0].value))
        steps = list(pieces(outcome_of(run)))
        for number, piece in enumerate(steps, 1):
            work = self._values(piece)
            if number == len(steps):
                work.append(etcd.delete(keys.redo))
            compare = [etcd.is_value(keys.redo, place)]
            answer = await self._client.transact(pb.TxnRequest(compare=compare, success=work))
            if not answer.succeeded:
                return

    # ---- reading ----

    async def head(self) -> tuple[Head, int]:
        """And the revision of etcd at which it was read."""
        answer = await self._client.range(pb.RangeRequest(key=self._keys.head))
        return read_head(answer.kvs[0].value), answer.header.revision

    async def settled(self, *more: pb.RequestOp) -> tuple[Head, pb.TxnResponse]:
        """The end of the history at a moment when all of it is in `now/`, and what else was asked
        for, at places 2 and on of the same transaction's answer."""
        keys = self._keys
        request = pb.TxnRequest(success=[etcd.get(keys.head), etcd.get(keys.redo), *more])
        while True:
            answer = await self._client.transact(request)
            if not etcd.found(answer, 1):
                return read_head(etcd.found(answer, 0)[0].value), answer
            await self.settle()

    async def runs(self, after: int, last: int) -> AsyncIterator[tuple[storage_pb2.LogRun, int]]:
        """From the run that has revision `after` + 1, or the first that is kept, on; each with the
        revision of etcd that made it."""
        holding = await self.holding(after + 1)
        start = self._keys.log(holding[0].first if holding else after + 1)
        end = self._keys.log(last + 1)
        while True:
            page = await self._client.range(
                pb.RangeRequest(key=start, range_end=end, limit=_PAGE_RUNS)
            )
            for kv in page.kvs:
                yield await self.read(kv.value), kv.mod_revision
            if not page.more:
                return
            start = page.kvs[-1].key + b"\0"

    async def holding(self, revision: int) -> tuple[storage_pb2.LogRun, int] | None:
        """The run with this revision, or the last one before it."""
        keys = self._keys
        newest = pb.RangeRequest(
            key=keys.logs, range_end=keys.log(revision + 1), limit=1, sort_order=_DESCEND
        )
        kvs = (await self._client.range(newest)).kvs
        return (await self.read(kvs[0].value), kvs[0].mod_revision) if kvs else None

    async def read(self, value: bytes) -> storage_pb2.LogRun:
        return await self.whole(storage_pb2.LogRun.FromString(value))

    async def whole(self, run: storage_pb2.LogRun) -> storage_pb2.LogRun:
        """With the batches from its parts, if it has any."""
        if run.parts:
            prefix = self._keys.part(run.first, run.token).rpartition(b"/")[0] + b"/"
            pieces = await self._client.range(pb.RangeRequest(key=prefix, range_end=until(prefix)))
            run.MergeFromString(b"".join(kv.value for kv in pieces.kvs))
        return run

    def ends(self, run: storage_pb2.LogRun) -> Head:
        return Head(last_of(run), run.token)
