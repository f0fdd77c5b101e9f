"""Twins that a vCenter above sees, and those below do not: it tells whom they concern, who freeze
them as if they had seen them themselves, where its word is configured to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b

import grpc.aio
import structlog

from common.clock import Clock
from common.codec.checker import Checker
from common.codec.twin import from_twin, to_twin
from common.errors import Refusal
from common.model.twin import Twin
from common.pb.vsignal.v1 import federation_pb2 as pb
from common.wake import Bell, first_of
from vcenter.core import indexes
from vcenter.core.twin import MAX_TWINS, Told
from vcenter.federation.neighbour import Neighbour
from vcenter.ledger.ledger import Ledger

HELD_S = 5.0  # an answer that is nothing new waits so long for something
ANSWERED_WITHIN = HELD_S + 10.0
AGAIN_S = 1.0  # after a parent that could not be asked

log = structlog.get_logger()


class Warnings:
    """`run` it. `judges`: parents whose word freezes."""

    def __init__(self, own: str, ledger: Ledger, judges: Iterable[Neighbour], clock: Clock) -> None:
        self._own = own
        self._ledger = ledger
        self._judges = tuple(judges)
        self._clock = clock
        self._changed = Bell()
        ledger.feed.listen(lambda _: self._changed.ring(), Twin)

    async def run(self) -> None:
        """For ever. What was told by who is no parent any more, or freezes no more, is over."""
        names = {judge.name for judge in self._judges}
        before = {t.told_by for t in self._ledger.table.all(Twin, indexes.TWINS)}
        for name in sorted(before - names - {""}):
            while not await self._written(name, ()):
                await self._clock.sleep(AGAIN_S)
        async with asyncio.TaskGroup() as tasks:
            for judge in self._judges:
                tasks.create_task(self._follow(judge))

    async def _follow(self, judge: Neighbour) -> None:
        """While it cannot be asked, what it said last holds."""
        heard = 0
        while True:
            try:
                answer = await judge.twins(heard, ANSWERED_WITHIN)
            except grpc.aio.AioRpcError as error:
                log.debug("twins not told", domain=judge.name, why=str(error.code()))
                await self._clock.sleep(AGAIN_S)
                continue
            if answer.mark == heard or await self._written(judge.name, self._read(answer)):
                heard = answer.mark
            else:
                await self._clock.sleep(AGAIN_S)

    def _read(self, answer: pb.TwinsResponse) -> tuple[Twin, ...]:
        """What cannot be read, or is none of ours, is left out."""
        found = []
        for wire in answer.twins[:MAX_TWINS]:
            check = Checker()
            twin = from_twin(check, wire)
            if not check.violations and self._own in twin.domains:
                found.append(twin)
        return tuple(found)

    async def _written(self, name: str, twins: tuple[Twin, ...]) -> bool:
        try:
            await self._ledger.submit(Told(name, twins))
        except Refusal:
            return False  # the store cannot be written now
        return True

    # ---- for those below ----

    async def answer(self, domain: str, heard: int) -> pb.TwinsResponse:
        """What concerns that domain; the same once more, if there is nothing new in time."""
        ends = self._clock.monotonic() + HELD_S
        while True:
            answer = self._answer(domain)
            left = ends - self._clock.monotonic()
            if answer.mark != heard or left <= 0:
                return answer
            await first_of(self._changed.next(), self._clock.sleep(left))

    def _answer(self, domain: str) -> pb.TwinsResponse:
        twins = self._ledger.table.all(Twin, indexes.TWINS)
        concerned = (twin for twin in twins if twin.frozen and domain in twin.domains)
        answer = pb.TwinsResponse(twins=map(to_twin, concerned))
        said = answer.SerializeToString(deterministic=True)
        answer.mark = int.from_bytes(blake2b(said, digest_size=8).digest(), "big")
        return answer
