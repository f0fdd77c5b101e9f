"""Letters between replicas: keys that the addressee takes away, and that end with their sender."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

from common.clock import Clock
from common.pb.etcd import mvcc_pb2
from common.pb.etcd import rpc_pb2 as pb
from common.pb.vsignal.v1 import storage_pb2
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Forgotten, Refused, Unreachable
from vcenter.store.etcd.layout import Keys, until
from vcenter.store.etcd.replica import Presence
from vcenter.store.etcd.watching import watched

_RESTART_S = 0.5


class Mail:
    def __init__(self, client: Client, keys: Keys, presence: Presence, clock: Clock) -> None:
        self._client = client
        self._keys = keys
        self._presence = presence
        self._clock = clock

    async def send(self, to: str, letter: storage_pb2.Letter) -> None:
        """Raises `Unreachable` or `Refused`. Whether it is read nobody says."""
        key = self._keys.mail(to) + uuid4().hex.encode()
        op = etcd.put(key, letter.SerializeToString(), self._presence.lease)
        await self._client.transact(pb.TxnRequest(success=[op]))

    async def letters(self) -> AsyncIterator[storage_pb2.Letter]:
        """Those that come to us, for ever; a letter may come twice."""
        prefix = self._keys.mail(self._presence.name)
        while True:
            with suppress(Unreachable, Refused, Forgotten):
                box = await self._client.range(pb.RangeRequest(key=prefix, range_end=until(prefix)))
                for kv in box.kvs:
                    yield await self._taken(kv)
                async for kv in watched(self._client, prefix, box.header.revision + 1):
                    yield await self._taken(kv)
            await self._clock.sleep(_RESTART_S)

    async def _taken(self, kv: mvcc_pb2.KeyValue) -> storage_pb2.Letter:
        await self._client.transact(pb.TxnRequest(success=[etcd.delete(kv.key)]))
        return storage_pb2.Letter.FromString(kv.value)
