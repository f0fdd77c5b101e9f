"""Calls to a cluster: one member at a time, another when that one fails.

Everything that is called here may be called again: reads, and transactions that compare what they
were made for. So a call without an answer is repeated at the next member until its time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc

from common.clock import Clock
from common.pb.etcd import rpc_pb2 as pb
from common.pb.etcd import rpc_pb2_grpc

WITHIN_S = 5.0  # longer than an election takes
_ATTEMPT_S = 1.5
_PAUSE_S = 0.05
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 6_000),  # etcd allows one in 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
)
# A member that has lost its leader ends such a stream, instead of going on in silence.
WITH_A_LEADER = (("hasleader", "true"),)
_COMPACTED = "required revision has been compacted"

R = TypeVar("R")


class Unreachable(Exception):
    """No member has answered: whether the call was carried out is not known."""


class Refused(Exception):
    """etcd has answered, and will not."""


class Forgotten(Exception):
    """The revision of etcd has been compacted."""


class Member:
    """One member's services."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.lease = rpc_pb2_grpc.LeaseStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(self.channel)


class Client:
    def __init__(self, addresses: Sequence[str], clock: Clock) -> None:
        self._members = [Member(address) for address in addresses]
        self._at = 0
        self._clock = clock

    @property
    def member(self) -> Member:
        """The one that is spoken to now."""
        return self._members[self._at]

    def avoid(self, member: Member) -> None:
        """Go on with the next one, unless somebody has done so already."""
        if member is self.member:
            self._at = (self._at + 1) % len(self._members)

    async def close(self) -> None:
        for member in self._members:
            await member.channel.close()

    async def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """Linearizable unless it says otherwise."""
        answer: pb.RangeResponse = await self.call(lambda member: member.kv.Range, request)
        return answer

    async def transact(self, request: pb.TxnRequest) -> pb.TxnResponse:
        answer: pb.TxnResponse = await self.call(lambda member: member.kv.Txn, request)
        return answer

    async def call(
        self, method: Callable[[Member], Any], request: Any, within: float = WITHIN_S
    ) -> Any:
        """Raises `Unreachable`, `Refused` or `Forgotten`."""
        deadline = self._clock.monotonic() + within
        while True:
            member = self.member
            left = max(deadline - self._clock.monotonic(), 0.05)
            try:
                call = method(member)(request, timeout=min(left, _ATTEMPT_S))
                return await answered(call)
            except Unreachable as error:
                said = f"{member.address}: {error}"
            self.avoid(member)
            if self._clock.monotonic() + _PAUSE_S >= deadline:
                raise Unreachable(f"no member of etcd answers; the last was {said}")
            await self._clock.sleep(_PAUSE_S)


_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,  # "etcdserver: server stopped" and its like
)


async def answered(call: Awaitable[R]) -> R:
    """Await one member, in our own three words."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        said = f"{error.code().name}: {error.details()}"
        if error.code() is grpc.StatusCode.OUT_OF_RANGE and _COMPACTED in said:
            raise Forgotten(said) from error
        if error.code() in _AGAIN:
            raise Unreachable(said) from error
        raise Refused(said) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled us: grpc.aio says it this way when the *server* has cancelled the call.
        raise Unreachable("the member cancelled the call") from error
    except asyncio.InvalidStateError as error:
        raise Unreachable("the stream is over") from error


# ---- requests, put together ----


def get(key: bytes, end: bytes = b"", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, **more))


def put(key: bytes, value: bytes, lease: int = 0) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))


def is_value(key: bytes, value: bytes) -> pb.Compare:
    return pb.Compare(key=key, target=pb.Compare.VALUE, value=value)


def is_absent(key: bytes) -> pb.Compare:
    return pb.Compare(key=key, target=pb.Compare.VERSION, version=0)


def was_created(key: bytes, revision: int) -> pb.Compare:
    """At this revision of etcd; 0: it does not exist."""
    return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=revision)


def found(response: pb.TxnResponse, place: int) -> list[Any]:
    """The key-values of one range in a transaction's answer."""
    return list(response.responses[place].response_range.kvs)
