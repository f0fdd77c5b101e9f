"""Whether another domain has a VM, or its addresses: looked at with each that comes or changes, and
said once both can be heard, for what one has said before may be over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.vm import VmRecord
from common.wake import Wake
from vcenter.core.duplicate import Duplicate, Held, Raise, duplicate, touched
from vcenter.federation.word import Word
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

WAITING = 1_000  # VMs that are to be looked at again; more are only logged
LOOK_EVERY = 0.05  # seconds at least between looks
AGAIN_S = 1.0  # after what could not be told, or not be written down

log = structlog.get_logger()


class Duplicates:
    """`run` it. `may_have`: of this domain and all whose ledgers are followed, those that may have
    the VM or one of its addresses; `words`: of all. `found` hears of each identity in two domains.
    """

    def __init__(
        self,
        own: str,
        ledger: Ledger,
        may_have: Callable[[VmRecord], Iterable[Held]],
        words: Callable[[], Iterable[Word]],
        found: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._own = own
        self._ledger = ledger
        self._may_have = may_have
        self._words = words
        self._found = found
        self._clock = clock
        self._wake = Wake(clock)
        self._waiting: dict[tuple[str, str], None] = {}  # a domain, and a VM of its

    def listen(self) -> None:
        self._ledger.feed.listen(self._committed, VmRecord)

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, VmRecord):
                self.seen(self._own, change.after)

    def seen(self, domain: str, record: VmRecord) -> None:
        """A VM of this domain or another. What is seen on both sides is found by one of them."""
        known = list(self._may_have(record))
        if any(duplicate(domain, record, other, known) for other in touched(domain, record, known)):
            self._look_later_at(domain, record.vm.vm_id)
            self._wake.ring()

    def _look_later_at(self, domain: str, vm_id: str) -> None:
        if len(self._waiting) < WAITING:
            self._waiting[domain, vm_id] = None
        else:
            log.error("too many duplicates to look at", domain=domain, vm=vm_id)

    def look_again(self) -> None:
        """Somebody may be heard again, or have said more."""
        if self._waiting:
            self._wake.ring()

    async def run(self) -> None:
        """Put alarms on record, for ever."""
        while True:
            await self._wake.heard(AGAIN_S if self._waiting else None)
            waiting, self._waiting = self._waiting, {}
            for domain, vm_id in waiting:
                for found in list(self._look(domain, vm_id)):
                    await self._write(found, domain, vm_id)
            await self._clock.sleep(LOOK_EVERY)

    def _look(self, domain: str, vm_id: str) -> Iterator[Duplicate]:
        words = {word.held.domain: word for word in self._words()}
        record = words[domain].held.view.vm(vm_id)
        if record is None:
            return
        everybody = [word.held for word in words.values()]
        for other in touched(domain, record, everybody):
            found = duplicate(domain, record, other, everybody)
            if found is None:
                continue
            if words[domain].is_current and words[other.domain].is_current:
                yield found
            else:
                self._look_later_at(domain, vm_id)

    async def _write(self, found: Duplicate, domain: str, vm_id: str) -> None:
        self._found(found.identity)
        try:
            await self._ledger.submit(Raise((found.alarm,)))
        except Refusal as refusal:
            log.error("not on record", alarm=found.alarm.message, why=refusal.message)
            self._look_later_at(domain, vm_id)
