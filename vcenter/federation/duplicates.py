"""Whether another domain has a VM, or its addresses: looked at with each that comes or changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from common.errors import Refusal
from common.model.vm import VmRecord
from vcenter.core.command import Alarm
from vcenter.core.duplicate import Held, Raise, duplicate
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

QUEUE = 1_000  # alarms that wait to be recorded; more are only logged

log = structlog.get_logger()


class Duplicates:
    """`held`: this domain and all whose ledgers are followed, as far as they are known now."""

    def __init__(self, own: str, ledger: Ledger, held: Callable[[], Iterable[Held]]) -> None:
        self._own = own
        self._ledger = ledger
        self._held = held
        self._alarms: asyncio.Queue[Alarm] = asyncio.Queue(QUEUE)

    def listen(self) -> None:
        self._ledger.feed.listen(self._committed)

    async def run(self) -> None:
        """Put alarms on record, for ever."""
        while True:
            alarm = await self._alarms.get()
            try:
                await self._ledger.submit(Raise((alarm,)))
            except Refusal as refusal:
                log.error("an alarm was not recorded", alarm=alarm.message, why=refusal.message)

    def seen(self, domain: str, record: VmRecord) -> None:
        """A VM of this domain or another. What is seen on both sides is found by one of them."""
        for other in self._held():
            alarm = duplicate(domain, record, other) if other.domain != domain else None
            if alarm is None:
                continue
            try:
                self._alarms.put_nowait(alarm)
            except asyncio.QueueFull:
                log.error("too many alarms", alarm=alarm.message, evidence=alarm.evidence)

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, VmRecord):
                self.seen(self._own, change.after)
