"""Keeps history for as long as is configured, and no longer: one task, owned by the composition.

Each round drops what has grown too old since the last, in slices between which writes get their
turn. A store that fails (a full disk, say) is tried again in the next round; nobody is held up.
"""

from __future__ import annotations

import structlog

from common.clock import Clock
from vcenter.store.port import Store, WriteFailed

log = structlog.get_logger()

EVERY_S = 60.0


async def keep_history(store: Store, clock: Clock, hours: float) -> None:
    """For ever."""
    while True:
        before_ms = clock.now_ms() - int(hours * 3_600_000)
        try:
            revision = await store.compact(before_ms)
            log.debug("history compacted", revision=revision)
        except WriteFailed as error:
            log.warning("history not compacted", error=str(error))
        await clock.sleep(EVERY_S)
