"""How fast a guest writes its memory, by QEMU's dirty page sampling."""

from __future__ import annotations

from common.clock import Clock
from vserver.hypervisor.qemu.watched import Watched
from vserver.hypervisor.sampling import MIB, READY_AFTER, SECONDS


async def writing(watched: Watched, clock: Clock) -> float | None:
    """Bytes a second; None of a guest that is on its way, or whose sample is not ready."""
    home, monitor = watched.home, watched.monitor
    if home.has("leaving") or home.has("incoming"):
        return None
    await monitor.execute("calc-dirty-rate", calc_time=SECONDS)
    await clock.sleep(READY_AFTER)
    seen = await monitor.execute("query-dirty-rate")
    return float(seen["dirty-rate"]) * MIB if seen["status"] == "measured" else None
