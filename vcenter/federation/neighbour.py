"""One other vCenter: how it is reached, who it is, and since when it is silent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
import grpc.aio
import structlog

from common import rpc
from common.clock import Clock
from common.codec.times import to_timestamp
from common.pb.vsignal.v1 import (
    directory_pb2_grpc,
    federation_pb2_grpc,
    signaling_pb2,
    types_pb2,
)
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.renewal import Renewal
from common.tls import Keeper
from vcenter.federation.settings import DomainSettings

T = TypeVar("T")
CALL_WITHIN = 2.0  # seconds; whoever asks waits for it

log = structlog.get_logger()


Dial = Callable[[DomainSettings], grpc.aio.Channel]


async def answer_to(call: Awaitable[T]) -> T:
    """What a call is answered. grpc.aio raises CancelledError as well when the other side has
    cancelled it, as a vCenter does that stops; then this raises `grpc.aio.AioRpcError`."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        nothing = grpc.aio.Metadata()
        code, why = grpc.StatusCode.CANCELLED, "cancelled by the other side"
        raise grpc.aio.AioRpcError(code, nothing, nothing, details=why) from None


class Wrong(Exception):
    """It is not what the configuration says."""


class Neighbour:
    """`own` is this domain's name. Raises `TlsError`, as `dial` does."""

    def __init__(
        self, settings: DomainSettings, dial: Dial, own: str, clock: Clock, chance: random.Random
    ) -> None:
        self._settings = settings
        self._dial = dial
        self.name = settings.name
        self.relation = pb.Relation.Value(f"RELATION_{settings.relation.upper()}")
        self.address = settings.address
        self.freezes = settings.freezes
        self.channel = dial(settings)
        self._before: grpc.aio.Channel | None = None
        self.identity = rpc.identity(f"domain/{own}")
        self.stale_since_ms = 0  # 0: it is not
        self._own = own
        self._clock = clock
        self._state: pb.DomainState.ValueType = pb.DOMAIN_STATE_UNSPECIFIED
        self._problem = "not heard of yet"
        self._heard_ms = 0
        self._heard_at = 0.0
        self.renewal: Renewal | None = None  # of our certificate there; run it
        if settings.tls is not None:
            keeper, places = Keeper(settings.tls), (settings.address,)
            self.renewal = Renewal(keeper, places, self.redial, clock, chance)

    async def redial(self) -> None:
        """With the certificate that is in the files now. What is under way on the connection before
        has until the next time, which is half of a certificate's life. Raises `TlsError`."""
        channel = self._dial(self._settings)
        old, self._before, self.channel = self._before, self.channel, channel
        if old is not None:
            await old.close()

    async def close(self) -> None:
        for channel in (self._before, self.channel):
            if channel is not None:
                await channel.close()

    async def domains(self, tree: bool, asked: Sequence[str]) -> pb.ListDomainsResponse:
        """Raises `grpc.aio.AioRpcError`."""
        request = pb.ListDomainsRequest(tree=tree, asked=asked)
        stub = federation_pb2_grpc.FederationStub(self.channel)
        call = stub.ListDomains(request, metadata=self.identity, timeout=CALL_WITHIN)
        return await answer_to(call)

    async def lookup(
        self, keys: Sequence[types_pb2.VmKey], asked: Sequence[str]
    ) -> Sequence[signaling_pb2.LookupResult]:
        """What it has, or knows of others: one result a key, in order. Raises
        `grpc.aio.AioRpcError`."""
        request = signaling_pb2.LookupRequest(keys=keys, asked=asked)
        stub = directory_pb2_grpc.DirectoryStub(self.channel)
        call = stub.Lookup(request, metadata=self.identity, timeout=CALL_WITHIN)
        return (await answer_to(call)).results

    async def members(self, request: pb.MembersRequest, within: float) -> pb.MembersResponse:
        """Of networks in the domains that it knows. Raises `grpc.aio.AioRpcError`."""
        stub = federation_pb2_grpc.FederationStub(self.channel)
        return await answer_to(stub.Members(request, metadata=self.identity, timeout=within))

    async def twins(self, heard: int, within: float) -> pb.TwinsResponse:
        """Of us and others, as it sees them. Raises `grpc.aio.AioRpcError`."""
        stub = federation_pb2_grpc.FederationStub(self.channel)
        request = pb.TwinsRequest(heard=heard)
        return await answer_to(stub.Twins(request, metadata=self.identity, timeout=within))

    @property
    def is_current(self) -> bool:
        return self._state == pb.DOMAIN_STATE_CURRENT

    @property
    def is_right(self) -> bool:
        """Not known to be another than the one it is configured as."""
        return self._state != pb.DOMAIN_STATE_REFUSED

    def heard(self) -> None:
        if not self.is_current:
            log.info("heard of", domain=self.name, address=self.address)
        self._state, self._problem, self.stale_since_ms = pb.DOMAIN_STATE_CURRENT, "", 0
        self._heard_ms, self._heard_at = self._clock.now_ms(), self._clock.monotonic()

    def lost(self, problem: str) -> None:
        self._not_current(pb.DOMAIN_STATE_STALE, problem)

    def refused(self, problem: str) -> None:
        self._not_current(pb.DOMAIN_STATE_REFUSED, problem)

    def _not_current(self, state: pb.DomainState.ValueType, problem: str) -> None:
        """Silent since it was last heard of, which is before we noticed."""
        if problem != self._problem:
            log.warning("not heard of", domain=self.name, address=self.address, problem=problem)
        self._state, self._problem = state, problem
        self.stale_since_ms = self.stale_since_ms or self._heard_ms or self._clock.now_ms()

    def age(self) -> float:
        """Seconds since it was heard of."""
        return self._clock.monotonic() - self._heard_at if self._heard_ms else 0.0

    def to_wire(self) -> pb.Domain:
        domain = pb.Domain(
            name=self.name,
            relation=self.relation,
            address=self.address,
            state=self._state,
            problem=self._problem,
        )
        if self._heard_ms:
            domain.heard_at.CopyFrom(to_timestamp(self._heard_ms))
        if self.stale_since_ms:
            domain.stale_since.CopyFrom(to_timestamp(self.stale_since_ms))
        return domain
