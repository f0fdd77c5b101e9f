"""This replica's presence in etcd: a key that lives as long as its lease is kept alive.

Every transaction compares when the key was created. So a replica that was taken for dead, because
it was paused or cut off for longer than its lease, writes nothing more in that life: it registers
again, in a new one, and begins anew with its agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import grpc
import structlog

from common.clock import Clock
from common.pb.etcd import rpc_pb2 as pb
from vcenter.store.etcd import client as etcd
from vcenter.store.etcd.client import Client, Refused, Unreachable
from vcenter.store.etcd.layout import Keys

log = structlog.get_logger()

LEASE_S = 6
_RENEW_S = 1.5
_ANSWER_S = 2.0


class Presence:
    """`life`: etcd's revision when this life began; 0: not alive."""

    def __init__(self, client: Client, keys: Keys, name: str, clock: Clock) -> None:
        self.name = name
        self.key = keys.replica(name)
        self.life = 0
        self.reborn: Callable[[], None] = lambda: None
        self._client = client
        self._clock = clock
        self._lease = 0
        self._doubted = asyncio.Event()

    @property
    def lease(self) -> int:
        """For keys that are to end with this life."""
        return self._lease

    def is_alive(self) -> pb.Compare:
        return etcd.was_created(self.key, self.life)

    def doubt(self) -> None:
        """A transaction was refused because this life is over."""
        self._doubted.set()

    async def begin(self) -> None:
        """Register. Raises `Unreachable` or `Refused`."""
        asked = pb.LeaseGrantRequest(TTL=LEASE_S)
        granted = await self._client.call(lambda member: member.lease.LeaseGrant, asked)
        request = pb.TxnRequest(
            compare=[etcd.is_absent(self.key)],
            success=[etcd.put(self.key, self.name.encode(), granted.ID)],
            failure=[etcd.get(self.key)],
        )
        answer = await self._client.transact(request)
        if answer.succeeded:
            self._lease, self.life = granted.ID, answer.header.revision
        else:  # an earlier attempt of ours went through, or an old life is not over yet
            (known,) = etcd.found(answer, 0)
            self._lease, self.life = known.lease, known.create_revision

    async def keep(self) -> None:
        """For ever: renew the lease, and begin a new life when it is lost."""
        while True:
            with suppress(Unreachable, Refused):
                if self._doubted.is_set() or not await self._renewed():
                    await self._again()
            with suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_S):
                    await self._doubted.wait()

    async def _again(self) -> None:
        life = self.life
        await self.begin()
        self._doubted.clear()
        if life != self.life:
            log.warning("this replica was taken for dead, and begins anew", replica=self.name)
            self.reborn()

    async def _renewed(self) -> bool:
        """False: the lease is no more. Raises `Unreachable` when nobody answers."""
        member = self._client.member
        try:
            async with asyncio.timeout(_ANSWER_S), self._stream() as stream:
                await etcd.answered(stream.write(pb.LeaseKeepAliveRequest(ID=self._lease)))
                said = await etcd.answered(stream.read())
        except (Unreachable, TimeoutError) as error:
            self._client.avoid(member)
            raise Unreachable(str(error)) from error
        return isinstance(said, pb.LeaseKeepAliveResponse) and said.TTL > 0

    @asynccontextmanager
    async def _stream(
        self,
    ) -> AsyncIterator[
        grpc.aio.StreamStreamCall[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]
    ]:
        call = self._client.member.lease.LeaseKeepAlive()
        try:
            yield call
        finally:
            call.cancel()

    async def end(self) -> None:
        """Say that nobody needs to wait for the lease to run out."""
        if self._lease:
            request = pb.LeaseRevokeRequest(ID=self._lease)
            with suppress(Unreachable, Refused):
                await self._client.call(lambda member: member.lease.LeaseRevoke, request, 1.0)
            self._lease = self.life = 0
