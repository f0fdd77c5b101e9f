"""What no order wants any more is ended: standbys whose end this host was not there to hear of, and
what keeps VMs from starting for moves that are over."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from common import log
from common.errors import Reason
from common.model.operation import MoveKind
from vserver.guests import FAILURES
from vserver.moves.means import Means

_log = log.get(__name__)


class Leftovers:
    """`busy`: VMs with a step under way; what is to be done with those is known there."""

    def __init__(self, means: Means, busy: Collection[str]) -> None:
        self._means = means
        self._busy = busy
        self._ending: dict[str, asyncio.Event] = {}

    async def sweep(self) -> None:
        await _quietly(self._end_standbys())
        await _quietly(self._give_up())

    async def ended(self, vm_id: str) -> None:
        """Returns when nothing of this VM is being ended: a step that is busy with it from now on
        keeps what it makes."""
        if vm_id in self._ending:
            await self._ending[vm_id].wait()

    async def _end_standbys(self) -> None:
        means, standbys = self._means, self._means.hypervisor.standbys
        if standbys is None:
            return
        for vm_id in sorted(await standbys.kept()):
            if means.wanted.complete and vm_id not in self._busy and not _is_standby(means, vm_id):
                _log.info("a standby that nobody wants is ended", vm_id=vm_id)
                with self._at(vm_id):
                    await standbys.unmirror(vm_id)
                    await standbys.drop(vm_id)

    async def _give_up(self) -> None:
        means = self._means
        for vm_id in sorted(means.hypervisor.kept()):
            if means.wanted.complete and not _is_moving(means, vm_id):
                with self._at(vm_id):
                    await means.hypervisor.give_up(vm_id)

    @contextmanager
    def _at(self, vm_id: str) -> Iterator[None]:
        ended = self._ending[vm_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._ending[vm_id]
            ended.set()


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except FAILURES as error:
        _log.warning("what is left of moves", error=str(error))


def _is_standby(means: Means, vm_id: str) -> bool:
    wanted = means.wanted.vms.get(vm_id)
    order = wanted.move if wanted is not None else None
    return order is not None and order.kind is MoveKind.STANDBY


def _is_moving(means: Means, vm_id: str) -> bool:
    """Live, or has been lost by that: nobody starts it then."""
    wanted = means.wanted.vms.get(vm_id)
    if wanted is None:
        return False
    is_live = wanted.move is not None and wanted.move.kind is MoveKind.LIVE
    return is_live or wanted.closed_reason == Reason.NEEDS_FENCE.name
