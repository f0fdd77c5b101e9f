"""Keeps history and ended operations for as long as is configured, and no longer: a task for each,
owned by the composition.

Each round drops what has grown too old since the last, in slices between which writes get their
turn. A store that fails (a full disk, say) is tried again in the next round; nobody is held up.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import Operation
from vcenter.core import indexes
from vcenter.core.forgetting import ForgetOperations, is_forgettable
from vcenter.ledger.ledger import Ledger
from vcenter.store.port import Store, WriteFailed

log = structlog.get_logger()

EVERY_S = 60.0
SLICE = 200  # operations that are looked at in one go


async def keep_history(store: Store, clock: Clock, hours: float) -> None:
    """For ever."""
    while True:
        try:
            revision = await store.compact(_before(clock, hours))
            log.debug("history compacted", revision=revision)
        except WriteFailed as error:
            log.warning("history not compacted", error=str(error))
        await clock.sleep(EVERY_S)


async def keep_operations(
    ledger: Ledger, clock: Clock, hours: float, is_ours: Callable[[], bool]
) -> None:
    """For ever. `is_ours`: whether this replica, of several, is the one that does it."""
    while True:
        if is_ours():
            try:
                await _forget(ledger, clock, _before(clock, hours))
            except Refusal as refusal:
                log.warning("ended operations are kept longer", reason=refusal.message)
        await clock.sleep(EVERY_S)


async def _forget(ledger: Ledger, clock: Clock, before_ms: int) -> None:
    table = ledger.table
    known = list(table.find(indexes.OPERATIONS))
    for start in range(0, len(known), SLICE):
        some = [o for k in known[start : start + SLICE] if isinstance(o := table.get(k), Operation)]
        old = tuple(o.operation_id for o in some if is_forgettable(table, o, before_ms))
        if old:
            done = await ledger.submit(ForgetOperations(old, before_ms))
            log.debug("operations forgotten", operations=done.reply)
        await clock.sleep(0)


def _before(clock: Clock, hours: float) -> int:
    return clock.now_ms() - int(hours * 3_600_000)
