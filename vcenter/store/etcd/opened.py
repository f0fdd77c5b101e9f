"""The parts of an open store, and how a ledger begins in a cluster."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import uuid4

import structlog

from common.clock import Clock
from common.model.revision import next_generation
from common.pb.etcd import rpc_pb2 as pb
from common.pb.vsignal.v1 import storage_pb2
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.address import Address
from vcenter.store.etcd.client import Client, Refused, Unreachable
from vcenter.store.etcd.history import History
from vcenter.store.etcd.layout import TOKEN, Head, Keys, read_head, until
from vcenter.store.etcd.log import Log
from vcenter.store.etcd.mail import Mail
from vcenter.store.etcd.pen import Pen
from vcenter.store.etcd.replica import Presence
from vcenter.store.port import StoreUnusable

log = structlog.get_logger()

_EMPTY = Head(0, bytes(TOKEN))


class Opened:
    """`head` is the last end of the history that this replica has seen."""

    def __init__(self, address: Address, name: str, clock: Clock) -> None:
        self.keys = Keys(address.prefix)
        self.client = Client(address.members, clock)
        self.presence = Presence(self.client, self.keys, name, clock)
        self.pen = Pen(self.client, self.keys, clock)
        self.log = Log(self.client, self.keys, self.presence, self.pen)
        self.mail = Mail(self.client, self.keys, self.presence, clock)
        self.history = History(self.client, self.keys, self.log)
        self.head = _EMPTY
        self._address = address
        self._clock = clock
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises `StoreUnusable`."""
        try:
            await self.presence.begin()
            await self.log.settle()
            await self._begin()
            self.head, _ = await self.log.head()
        except (Unreachable, Refused) as error:
            await self.client.close()
            where = ", ".join(self._address.members)
            raise StoreUnusable(f"etcd at {where} cannot be used: {error}") from error
        except BaseException:
            await self.client.close()
            raise
        self._keeping = asyncio.create_task(self.presence.keep())

    async def close(self) -> None:
        if self._keeping:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        await self.presence.end()
        await self.client.close()

    def saw(self, head: Head) -> None:
        """Others have written. What we write ourselves we know already."""
        if head.revision > self.head.revision:
            self.head = head

    async def _begin(self) -> None:
        """Make the ledger if there is none. One that was restored into another cluster begins a
        new generation: in its first life it had revisions that it would give again."""
        keys = self.keys
        first = pb.TxnRequest(
            compare=[etcd.is_absent(keys.head)],
            success=[etcd.put(keys.head, _EMPTY.encoded())],
            failure=[etcd.get(keys.head), etcd.get(keys.cluster)],
        )
        answer = await self.client.transact(first)
        here = answer.header.cluster_id.to_bytes(8, "big")
        made_in = [] if answer.succeeded else etcd.found(answer, 1)
        if made_in and made_in[0].value == here:
            return
        request = pb.TxnRequest(success=[etcd.put(keys.cluster, here)])
        if made_in:
            head = read_head(etcd.found(answer, 0)[0].value)
            self._restored(request, head, answer.header.revision)
        await self.client.transact(request)

    def _restored(self, request: pb.TxnRequest, head: Head, at: int) -> None:
        """`at`: the revision of etcd at which all is as the backup had it."""
        keys = self.keys
        new = Head(next_generation(head.revision), uuid4().bytes)
        log.warning("restored from a backup", revision=head.revision, goes_on=new.revision)
        begins = storage_pb2.LogBeginning(
            compacted=new.revision, since_ms=self._clock.now_ms(), etcd_revision=at
        )
        request.compare.append(etcd.is_value(keys.head, head.encoded()))
        request.success.extend(
            (
                etcd.put(keys.head, new.encoded()),
                etcd.put(keys.begins, begins.SerializeToString()),
                etcd.delete(keys.logs, until(keys.logs)),
                etcd.delete(keys.parts, until(keys.parts)),
            )
        )
