"""How fast the guests of a host write their memory: looked at in turns, a few at a time.

The hypervisor compares a sample of a guest's pages at two moments. Moves are predicted from it
(`vcenter/core/forecast`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from common.clock import Clock
from common.errors import Refusal
from vserver.hypervisor.port import VmUsage

PAUSE, AT_ONCE = 3.0, 4
SECONDS, READY_AFTER = 1, 1.3  # of one sample; and how long until its result is sure to be there
MIB = 1 << 20
_log = logging.getLogger(__name__)


class Sampling:
    """`who`: the VMs that run here; `sample`: bytes that one writes in a second, None if it cannot
    be said."""

    def __init__(
        self,
        clock: Clock,
        who: Callable[[], Awaitable[Sequence[str]]],
        sample: Callable[[str], Awaitable[float | None]],
    ) -> None:
        self._clock = clock
        self._who = who
        self._sample = sample
        self._known: dict[str, float | None] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(PAUSE)
            try:
                await self._round(await self._who())
            except (Refusal, TimeoutError, OSError) as error:
                _log.debug("nobody's memory was looked at: %s", error)

    def noted(self, usage: Mapping[str, VmUsage]) -> dict[str, VmUsage]:
        """The same, with what has been seen of each."""
        return {
            vm_id: replace(each, dirty_bytes_per_second=self._known.get(vm_id))
            for vm_id, each in usage.items()
        }

    async def _round(self, here: Sequence[str]) -> None:
        """Whose turn was longest ago; whoever has come has never had one."""
        self._known = {vm_id: seen for vm_id, seen in self._known.items() if vm_id in here}
        new = [vm_id for vm_id in here if vm_id not in self._known]
        turn = [*new, *self._known][:AT_ONCE]
        seen = await asyncio.gather(*map(self._look, turn))
        for vm_id, rate in zip(turn, seen, strict=True):
            self._known.pop(vm_id, None)
            self._known[vm_id] = rate

    async def _look(self, vm_id: str) -> float | None:
        try:
            return await self._sample(vm_id)
        except (Refusal, TimeoutError, OSError) as error:
            _log.debug("how fast VM %s writes: %s", vm_id, error)
            return None
