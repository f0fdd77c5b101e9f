"""A child or a peer: its ledger is followed, and what it says is kept as a copy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import grpc.aio
import structlog

from common.clock import Clock
from common.codec.times import to_duration, to_timestamp
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import directory_pb2, directory_pb2_grpc, signaling_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from vcenter.federation.copy import Copy
from vcenter.federation.neighbour import Dial, Neighbour, Wrong
from vcenter.federation.settings import DomainSettings
from vcenter.wire.caller import Caller

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0  # seconds between attempts

log = structlog.get_logger()


class Followed(Neighbour):
    """`run` it. `seen(domain, record)` hears of each VM that came or changed there."""

    def __init__(
        self,
        settings: DomainSettings,
        dial: Dial,
        own: str,
        clock: Clock,
        chance: random.Random,
        seen: Callable[[str, VmRecord], None],
    ) -> None:
        super().__init__(settings, dial, own, clock, chance)
        self._chance = chance
        self._pause = FIRST_PAUSE
        self._attempt: asyncio.Task[None] | None = None
        self.leads_on = False  # it knows of domains that its ledger, and so its copy, does not have
        self.copy = Copy(settings.name, seen)

    async def run(self) -> None:
        """Follow, and follow again, for ever."""
        while True:
            attempt = self._attempt = asyncio.create_task(self._follow())
            try:
                await asyncio.wait({attempt})
            finally:
                attempt.cancel()
            if not attempt.cancelled():
                attempt.result()  # what is raised is a defect
                await self._clock.sleep(self._pause * self._chance.uniform(0.5, 1.0))
                self._pause = min(self._pause * 2, LAST_PAUSE)

    async def redial(self) -> None:
        """Goes on from the same revision, on the new connection."""
        await super().redial()
        if self._attempt is not None:
            self._attempt.cancel()

    async def _follow(self) -> None:
        try:
            await self._check()
            async for event in self._events():
                self._pause = FIRST_PAUSE
                self._take(event)
            self.lost("it ended the watch")
        except grpc.aio.AioRpcError as error:
            self.lost(f"{error.code().name}: {error.details()}")
        except Wrong as error:
            self.refused(str(error))

    async def _check(self) -> None:
        """That it is who we take it for, and does not follow us from above in its turn; and whether
        there is more behind it."""
        domain = (await self.domains(tree=False, asked=())).domain
        if domain.name != self.name:
            raise Wrong(f"it calls itself {domain.name!r}")
        self.leads_on = any(other.name != self._own for other in domain.domains)
        if self.relation == pb.RELATION_CHILD:
            for other in domain.domains:
                if other.name == self._own and other.relation == pb.RELATION_CHILD:
                    raise Wrong("it has us as its child, and we have it as ours")

    async def _events(self) -> AsyncIterator[directory_pb2.WatchEvent]:
        request = directory_pb2.WatchRequest(from_revision=self.copy.position)
        if not self.copy.position:
            self.copy.begin_anew()
        directory = directory_pb2_grpc.DirectoryStub(self.channel)
        call = directory.Watch(request, metadata=self.identity)
        try:
            async for event in call:
                yield event
        finally:
            call.cancel()

    def _take(self, event: directory_pb2.WatchEvent) -> None:
        if event.WhichOneof("change") == "resync":
            log.info("begins again from a snapshot", domain=self.name, why=event.resync)
            self.copy.begin_anew()
            self.lost("its changes were missed: it is read again")
            return
        self.copy.take(event)
        if self.copy.is_whole:
            self.heard()

    def find(self, key: VmKey, caller: Caller) -> signaling_pb2.LookupResult | None:
        """As it was when it was heard of last: cached, or stale since it cannot be heard."""
        result = self.copy.find(key, caller)
        if result is None:
            return None
        result.certainty = signaling_pb2.CERTAINTY_CACHED
        if self.stale_since_ms:
            result.certainty = signaling_pb2.CERTAINTY_STALE
            result.stale_since.CopyFrom(to_timestamp(self.stale_since_ms))
        result.age.CopyFrom(to_duration(self.age()))
        return result

    def to_wire(self) -> pb.Domain:
        domain = super().to_wire()
        domain.revision = self.copy.position
        domain.vms, domain.servers = self.copy.count()
        return domain
