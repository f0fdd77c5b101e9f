"""Identities in two domains, as this vCenter sees them: written down, so that orders about them are
refused, for as long as two domains hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.twin import Side, Twin
from common.model.vm import VmRecord
from common.wake import Wake
from vcenter.core import indexes
from vcenter.core.twin import MAX_TWINS, Seen, holders
from vcenter.federation.word import Word
from vcenter.ledger.ledger import Ledger

LOOK_EVERY = 0.05  # seconds at least between looks
REST = 20  # times as long as a look took, so that looking takes a twentieth of a CPU at most
AGAIN_S = 1.0  # after what could not be told, or not be written down

log = structlog.get_logger()


class Twins:
    """`run` it. `words`: of this domain, and of those that are followed."""

    def __init__(self, ledger: Ledger, words: Callable[[], Iterable[Word]], clock: Clock) -> None:
        self._ledger = ledger
        self._words = words
        self._clock = clock
        self._wake = Wake(clock)
        self._suspected: dict[str, None] = {}  # in the order in which they came up
        ledger.feed.listen(lambda _: self.look_again(), VmRecord)

    def suspect(self, identity: str) -> None:
        """Two domains may hold it."""
        self._look_later_at(identity)
        self._wake.ring()

    def _look_later_at(self, identity: str) -> None:
        if len(self._suspected) < MAX_TWINS:
            self._suspected[identity] = None

    def look_again(self) -> None:
        """Somebody who is known to hold one may have given it up."""
        self._wake.ring()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._wake.forget()
            began = self._clock.monotonic()
            seen = list(self._look())
            took = self._clock.monotonic() - began
            for one in seen:
                await self._write(one)
            await self._clock.sleep(max(LOOK_EVERY, REST * took))
            await self._wake.heard(AGAIN_S if self._suspected else None)

    def _look(self) -> Iterable[Seen]:
        """What has become different from what is written down."""
        table = self._ledger.table
        known = {t.identity: t for t in table.all(Twin, indexes.TWINS) if not t.told_by}
        looked_at = dict.fromkeys((*known, *self._suspected))
        self._suspected.clear()
        if not looked_at:
            return
        heard = [word for word in self._words() if word.freezes]
        everybody = [each.held for each in heard]
        for identity in looked_at:
            before = known[identity].sides if identity in known else ()
            sides = holders(identity, everybody)
            if _is_sure(before, sides, heard):
                if sides != before:
                    yield Seen(identity, sides)
            elif not before:
                self._look_later_at(identity)

    async def _write(self, seen: Seen) -> None:
        try:
            await self._ledger.submit(seen)
        except Refusal as refusal:
            log.error("not written down", identity=seen.identity, why=refusal.message)
            self._look_later_at(seen.identity)


def _is_sure(before: Sequence[Side], now: Sequence[Side], heard: Iterable[Word]) -> bool:
    """That who is not named any more has it no more, and that who is named newly has it still: of
    one that cannot be heard, what came first and what came then is not known."""
    was, holding = {side.domain for side in before}, {side.domain for side in now}
    return all(
        (each.is_whole or each.held.domain not in was - holding)
        and (each.is_current or each.held.domain not in holding - was)
        for each in heard
    )
