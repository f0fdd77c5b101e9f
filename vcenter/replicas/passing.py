"""What our hosts say of other domains' moves, told to every other replica: a neighbour may address
any of them, and it is kept in no ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from common.codec.checker import Checker
from common.codec.operation import from_outcome, to_outcome
from common.model.operation import MoveOutcome
from common.pb.vsignal.v1.storage_pb2 import Letter
from vcenter.ledger.feed import Feed
from vcenter.store.etcd import EtcdStore
from vcenter.store.etcd.client import Refused, Unreachable

WAITING = 256  # letters in either direction; of more the oldest are dropped, and said again
BEHIND_S = 2.0  # an order of which we have not heard then is no order for us to hear of

Listener: TypeAlias = Callable[[str, MoveOutcome], object]


class Passing:
    """`run` it. `others`: who is alive."""

    def __init__(self, store: EtcdStore, feed: Feed, others: Callable[[], frozenset[str]]) -> None:
        self._store = store
        self._feed = feed
        self._others = others
        self._leaving: asyncio.Queue[Letter] = asyncio.Queue(WAITING)
        self._coming: asyncio.Queue[Letter] = asyncio.Queue(WAITING)
        self._listener: Listener | None = None

    def listen(self, listener: Listener) -> None:
        """Who is told what other replicas' hosts say."""
        self._listener = listener

    def pass_on(self, server_id: str, outcome: MoveOutcome) -> None:
        revision = self._feed.table.revision
        letter = Letter(sender=self._store.name, server_id=server_id, revision=revision)
        letter.outcome.CopyFrom(to_outcome(outcome))
        _put(self._leaving, letter)

    def came(self, letter: Letter) -> None:
        _put(self._coming, letter)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._hear())

    async def _send(self) -> None:
        while True:
            letter = await self._leaving.get()
            for replica in sorted(self._others()):
                with suppress(Unreachable, Refused):
                    await self._store.mail.send(replica, letter)

    async def _hear(self) -> None:
        """Not before we know of the order that it answers."""
        while True:
            letter = await self._coming.get()
            check = Checker()
            outcome = from_outcome(check, letter.outcome)
            known = await self._feed.reached(letter.revision, BEHIND_S)
            if known and not check.violations and self._listener is not None:
                self._listener(letter.server_id, outcome)


def _put(queue: asyncio.Queue[Letter], letter: Letter) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(letter)
