"""What was: runs of the log, and the past of `now/`, which etcd keeps by itself.

The log says what happened in which order; etcd says what a key was before a run. So nothing is
stored twice, and forgetting is one transaction and one compaction of etcd.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.pb.etcd import rpc_pb2 as pb
from common.pb.vsignal.v1 import storage_pb2
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Forgotten, Refused, Unreachable
from vcenter.store.etcd.layout import (
    Held,
    Keys,
    entries_of,
    last_of,
    outcome_of,
    read_held,
    write_held,
)
from vcenter.store.etcd.log import Log
from vcenter.store.etcd.plan import MAX_KEYS
from vcenter.store.port import Compacted, Record, Version, WriteFailed

_SLICE_RUNS = 16


class History:
    def __init__(self, client: Client, keys: Keys, log: Log) -> None:
        self._client = client
        self._keys = keys
        self._log = log

    async def begins(self) -> storage_pb2.LogBeginning:
        answer = await self._client.range(pb.RangeRequest(key=self._keys.begins))
        return _read_beginning(answer)

    async def revision_at(self, at_ms: int) -> int:
        """By halves: times grow with revisions, but where a clock was set back."""
        begins = await self.begins()
        if at_ms < begins.since_ms:
            raise Compacted(begins.compacted)
        low, (head, _) = begins.compacted, await self._log.head()
        high = head.revision
        while low < high:
            middle = (low + high + 1) // 2
            found = await self._log.holding(middle)
            if found is None or last_of(found[0]) <= low:
                return low  # compaction was faster
            if found[0].at_ms <= at_ms:
                low = min(last_of(found[0]), high)
            else:
                high = found[0].first - 1
        return max(low, begins.compacted)

    async def value_at(self, key: str, revision: int) -> Record | None:
        begins = await self.begins()
        if revision < begins.compacted:
            raise Compacted(begins.compacted)
        found = await self._log.holding(revision)
        if found is None:
            held = await self._held(key, begins.etcd_revision, begins)
        else:
            run, made = found
            held = await self._held(key, made - 1, begins)
            for entry in entries_of(run):
                if entry.revision <= revision:
                    states = [Held(entry.revision, p.value) for p in entry.puts if p.key == key]
                    held = states[-1] if states else held
        return None if held.value is None else Record(key, held.value, held.revision)

    async def versions(self, key: str, limit: int) -> list[Version]:
        """From the present backwards: each state names the run that made it, and before that run
        etcd has the state before it."""
        begins, (_, answer) = await self.begins(), await self._log.settled()
        held = await self._held(key, answer.header.revision, begins)
        found: list[Version] = []
        while held.revision > begins.compacted and len(found) < limit:
            holding = await self._log.holding(held.revision)
            if holding is None or last_of(holding[0]) < held.revision:
                break  # compaction was faster
            run, made = holding
            states = [
                Version(entry.revision, put.value, run.at_ms)
                for entry in entries_of(run)
                for put in [p for p in entry.puts if p.key == key][-1:]
            ]
            found += reversed(states)
            held = await self._held(key, made - 1, begins)
        else:
            if held.value is not None and held.revision:
                found.append(Version(held.revision, held.value, 0))
        return found[:limit]

    async def mentions(self, prefix: str, text: bytes, until: int) -> set[str]:
        begins, (head, _) = await self.begins(), await self._log.head()
        touched: set[str] = set()
        found: set[str] = set()
        async for run, _ in self._log.runs(begins.compacted, head.revision):
            for entry in entries_of(run):
                puts = [p for p in entry.puts if p.key.startswith(prefix)]
                touched.update(put.key for put in puts)
                if entry.revision <= until:
                    found.update(p.key for p in puts if p.value is not None and text in p.value)
        before = await self._before(sorted(touched - found), begins)
        return found | {key for key, value in before.items() if text in value}

    async def _before(self, keys: list[str], begins: storage_pb2.LogBeginning) -> dict[str, bytes]:
        """What these were when history begins."""
        values: dict[str, bytes] = {}
        if not begins.etcd_revision:
            return values
        for start in range(0, len(keys), MAX_KEYS):
            asked = [
                etcd.get(self._keys.now(key), revision=begins.etcd_revision)
                for key in keys[start : start + MAX_KEYS]
            ]
            try:
                answer = await self._client.transact(pb.TxnRequest(success=asked))
            except Forgotten as error:
                raise Compacted(begins.compacted) from error
            for place in range(len(asked)):
                for kv in etcd.found(answer, place):
                    value = read_held(kv.value).value
                    if value is not None:
                        values[self._keys.name_of(kv.key)] = value
        return values

    async def _held(self, key: str, at: int, begins: storage_pb2.LogBeginning) -> Held:
        """Of a key at a revision of etcd, but not from before history begins."""
        at = max(at, begins.etcd_revision)
        if at <= 0:
            return Held(0, None)
        try:
            answer = await self._client.range(pb.RangeRequest(key=self._keys.now(key), revision=at))
        except Forgotten as error:
            raise Compacted(begins.compacted) from error
        return read_held(answer.kvs[0].value) if answer.kvs else Held(0, None)

    # ---- forgetting ----

    async def compact(self, before_ms: int) -> int:
        """In slices, between which writes get their turn."""
        try:
            return await self._compact(before_ms)
        except (Unreachable, Refused) as error:
            raise WriteFailed(f"history was not compacted, or not to its end: {error}") from error

    async def _compact(self, before_ms: int) -> int:
        while True:
            head, answer = await self._log.settled(etcd.get(self._keys.begins))
            begins = _beginning(etcd.found(answer, 2))
            old, end = await self._old(begins, before_ms, head.revision, answer.header.revision)
            if not old:
                return begins.compacted
            end.since_ms = old[-1].at_ms
            if await self._drop(begins, end, old):
                await self._compact_etcd(end.etcd_revision)

    async def _old(
        self, begins: storage_pb2.LogBeginning, before_ms: int, last: int, now: int
    ) -> tuple[list[storage_pb2.LogRun], storage_pb2.LogBeginning]:
        """Runs to forget, and where history then begins: just before the first that stays."""
        old: list[storage_pb2.LogRun] = []
        async for run, made in self._log.runs(begins.compacted, last):
            if run.at_ms >= before_ms or len(old) == _SLICE_RUNS:
                now = made - 1
                break
            old.append(run)
        compacted = last_of(old[-1]) if old else begins.compacted
        return old, storage_pb2.LogBeginning(compacted=compacted, etcd_revision=now)

    async def _drop(
        self,
        begins: storage_pb2.LogBeginning,
        end: storage_pb2.LogBeginning,
        old: Iterable[storage_pb2.LogRun],
    ) -> bool:
        """Whether we did it, and not another replica."""
        keys = self._keys
        await self._remove_marks(old)
        was = begins.SerializeToString()
        unchanged = etcd.is_value(keys.begins, was) if was else etcd.is_absent(keys.begins)
        answer = await self._client.transact(
            pb.TxnRequest(
                compare=[unchanged],
                success=[
                    etcd.put(keys.begins, end.SerializeToString()),
                    etcd.delete(keys.logs, keys.log(end.compacted + 1)),
                    etcd.delete(keys.parts, keys.part(end.compacted + 1)),
                ],
            )
        )
        return bool(answer.succeeded)

    async def _remove_marks(self, old: Iterable[storage_pb2.LogRun]) -> None:
        """Of keys that were deleted then and have not come back."""
        for run in old:
            gone = [(k, h) for k, h in outcome_of(run).items() if h.value is None]
            for start in range(0, len(gone), MAX_KEYS // 2):
                removals = [
                    self._removal(self._keys.now(key), write_held(held.revision, None))
                    for key, held in gone[start : start + MAX_KEYS // 2]
                ]
                await self._client.transact(pb.TxnRequest(success=removals))

    def _removal(self, key: bytes, mark: bytes) -> pb.RequestOp:
        compare, success = [etcd.is_value(key, mark)], [etcd.delete(key)]
        return pb.RequestOp(request_txn=pb.TxnRequest(compare=compare, success=success))

    async def _compact_etcd(self, revision: int) -> None:
        try:
            request = pb.CompactionRequest(revision=revision)
            await self._client.call(lambda member: member.kv.Compact, request)
        except Forgotten:
            pass  # it was done already


def _read_beginning(answer: pb.RangeResponse) -> storage_pb2.LogBeginning:
    return _beginning(list(answer.kvs))


def _beginning(kvs: list[object]) -> storage_pb2.LogBeginning:
    value = kvs[0].value if kvs else b""  # type: ignore[attr-defined]
    return storage_pb2.LogBeginning.FromString(value)
