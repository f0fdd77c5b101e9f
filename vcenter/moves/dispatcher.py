"""Gives queued moves their turn when something has changed that they may have waited for.

One task, owned by the composition. What is to be done follows from the table (`core/queue`), so
that waking up too often is harmless, and a vCenter that has just started goes on where another
stopped.
"""

from __future__ import annotations

import asyncio

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import Operation, Phase
from common.model.server import Server
from vcenter.core import indexes
from vcenter.core.queue import GiveTurns, Limits, give_turns
from vcenter.core.table import Applied
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

log = structlog.get_logger()

AGAIN_S = 1.0  # after a store that took no write
_WAITING = {Phase.QUEUED, Phase.UNDER_WAY}
_FREES = {Phase.MIRRORING}  # a standby that is in step is in nobody's way


class Dispatcher:
    def __init__(self, ledger: Ledger, clock: Clock, limits: Limits) -> None:
        self._ledger = ledger
        self._clock = clock
        self._limits = limits
        self._wake = asyncio.Event()
        self._wake.set()
        ledger.feed.listen(self._committed, Operation, Server)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not give_turns(self._ledger.table, self._limits, self._clock.now_ms()):
                continue
            try:
                await self._ledger.submit(GiveTurns(self._limits))
            except Refusal as refusal:
                log.warning("queued moves wait longer", reason=refusal.message)
                await self._clock.sleep(AGAIN_S)
                self._wake.set()

    def _committed(self, committed: Committed) -> None:
        if any(map(self._matters, committed.changes)):
            self._wake.set()

    def _matters(self, change: Applied) -> bool:
        """A move has ended, one has come, or a host is another than it was: if anybody waits."""
        if isinstance(change.after, Operation):
            return change.after.phase.final or change.after.phase in _WAITING | _FREES
        if not isinstance(change.after, Server):
            return False
        active = self._ledger.table.all(Operation, indexes.ACTIVE)
        return any(operation.phase in _WAITING for operation in active)
