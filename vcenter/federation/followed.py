"""A child or a peer: its ledger is followed, and what it says is kept as a copy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import grpc.aio
import structlog

from common.clock import Clock
from common.codec.times import to_duration, to_timestamp
from common.model.vm import VmKey, VmRecord
from common.pb.vsignal.v1 import directory_pb2, directory_pb2_grpc, signaling_pb2
from common.pb.vsignal.v1 import federation_pb2 as pb
from vcenter.federation.copy import Copy
from vcenter.federation.index import Index
from vcenter.federation.neighbour import Dial, Neighbour, Wrong
from vcenter.federation.settings import DomainSettings
from vcenter.wire.answers import Pieces
from vcenter.wire.caller import Caller

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0  # seconds between attempts
_CACHED = signaling_pb2.LookupResult(certainty=signaling_pb2.CERTAINTY_CACHED).SerializeToString()

log = structlog.get_logger()


class Heard(NamedTuple):
    """A VM as one domain has told of it; `authority`: the domain whose it is."""

    by: Followed
    vm_id: str
    authority: str
    epoch: int

    @property
    def is_its_own(self) -> bool:
        return self.authority == self.by.name

    @property
    def weight(self) -> tuple[bool, int, bool]:
        """Of several words the greatest counts: that of a domain which can be heard now and tells
        of its own, then the higher epoch. What a domain says of a VM that is not its own any more,
        or not yet, is kept by nobody up to date."""
        return (self.by.is_current and self.is_its_own, self.epoch, self.is_its_own)

    def encoded(self) -> bytes:
        """A LookupResponse with this result alone."""
        return self.by.answer(self)


def _age(ms: int) -> bytes:
    return signaling_pb2.LookupResult(age=to_duration(ms / 1000)).SerializeToString()


def _stale_since(ms: int) -> bytes:
    return signaling_pb2.LookupResult(
        certainty=signaling_pb2.CERTAINTY_STALE, stale_since=to_timestamp(ms)
    ).SerializeToString()


class Followed(Neighbour):
    """`run` it. `seen(domain, record)` hears of each VM that came or changed there, `changed()` of
    every change of the copy."""

    def __init__(
        self,
        settings: DomainSettings,
        dial: Dial,
        own: str,
        clock: Clock,
        chance: random.Random,
        seen: Callable[[str, VmRecord], None],
        changed: Callable[[], None],
        index: Index[Followed],
    ) -> None:
        super().__init__(settings, dial, own, clock, chance)
        self._chance = chance
        self._changed = changed
        self._pause = FIRST_PAUSE
        self._attempt: asyncio.Task[None] | None = None
        self.leads_on = False  # it knows of domains that its ledger, and so its copy, does not have
        self.only_asked = False  # it tells us nothing but answers to lookups
        self.copy = Copy(settings.name, seen, index.share(self))
        self._ages = Pieces(_age)
        self._stale = Pieces(_stale_since)

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
        us = [other for other in domain.domains if other.name == self._own]
        self.only_asked = any(other.tells == pb.TELLING_LOOKUPS for other in us)
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
        self._changed()
        if self.copy.is_whole:
            self.heard()

    def find(self, key: VmKey, caller: Caller) -> Heard | None:
        """What is kept of it that the caller may see."""
        vm_id = self.copy.find(key, caller)
        if vm_id is None:
            return None
        authority, epoch = self.copy.place_of(vm_id)
        return Heard(self, vm_id, authority, epoch)

    def answer(self, heard: Heard) -> bytes:
        """As it was when it was heard of last: cached, or stale since it cannot be heard. What it
        has of another domain's VM, for a move's sake, is stale since it was written down."""
        if heard.is_its_own:
            return self.copy.answer(heard.vm_id, self._moment(self.stale_since_ms))
        record = self.copy.table.vm(heard.vm_id)
        since_ms = record.changed_ms if record is not None else self._clock.now_ms()
        return self.copy.hearsay(heard.vm_id, self._moment(since_ms))

    def _moment(self, since_ms: int) -> bytes:
        """Fields of a result. 0: it is not stale."""
        certainty = self._stale[since_ms] if since_ms else _CACHED
        return certainty + self._ages[int(self.age() * 1000)]

    def to_wire(self) -> pb.Domain:
        domain = super().to_wire()
        domain.revision = self.copy.position
        domain.vms, domain.servers = self.copy.count()
        return domain
