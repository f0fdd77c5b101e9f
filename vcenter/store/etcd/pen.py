"""A replica's turn. Who decides on its own table and commits if nobody was faster may lose again
and again to one that is nearer to etcd; so a loser asks for the pen, and while it has it nobody
else commits. Its lease is short: one that dies with the pen holds nobody up for long."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from common.clock import Clock
from common.pb.etcd import rpc_pb2 as pb
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Refused, Unreachable
from vcenter.store.etcd.layout import Keys

_LEASE_S = 2  # the shortest that etcd grants
_WAIT_S = 1.5
_PAUSE_S = 0.005


class Pen:
    def __init__(self, client: Client, keys: Keys, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._key = keys.pen
        self._mine = b""

    def is_ours_to_write(self) -> pb.Compare:
        return etcd.is_value(self._key, self._mine) if self._mine else etcd.is_absent(self._key)

    async def take(self) -> None:
        """Wait for it, but not for ever: without it one can still be lucky."""
        token = uuid4().bytes
        asked = pb.LeaseGrantRequest(TTL=_LEASE_S)
        lease = (await self._client.call(lambda member: member.lease.LeaseGrant, asked)).ID
        request = pb.TxnRequest(
            compare=[etcd.is_absent(self._key)],
            success=[etcd.put(self._key, token, lease)],
            failure=[etcd.get(self._key)],
        )
        deadline = self._clock.monotonic() + _WAIT_S
        while self._clock.monotonic() < deadline:
            answer = await self._client.transact(request)
            held = [] if answer.succeeded else etcd.found(answer, 0)
            if answer.succeeded or [kv.value for kv in held] == [token]:
                self._mine = token
                return
            await self._clock.sleep(_PAUSE_S)

    async def give_back(self) -> None:
        """If we have it. Where etcd does not hear that, the lease ends by itself."""
        mine, self._mine = self._mine, b""
        if mine:
            request = pb.TxnRequest(
                compare=[etcd.is_value(self._key, mine)], success=[etcd.delete(self._key)]
            )
            with suppress(Unreachable, Refused):
                await self._client.transact(request)
