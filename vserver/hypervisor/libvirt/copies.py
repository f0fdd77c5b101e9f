"""The copies under way from this host, and those that are over but not yet buried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.operation import MoveKind, Progress
from vserver.hypervisor.libvirt import changing, copy_plan, domains
from vserver.hypervisor.libvirt.asked import Asked
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.copy import Copy
from vserver.hypervisor.libvirt.copy_plan import Way
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.source_process import record_directory
from vserver.hypervisor.port import Copied

_FIGURES = 256  # copies; of one whose move is decided by hand nobody asks
_log = logging.getLogger(__name__)


class Copies:
    """Owns every copy until libvirt is through with it, whoever stopped waiting before."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        on_change: Callable[[str], None],
        gate: Gate | None,
        asked: Asked,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._on_change = on_change
        self._gate = gate
        self._asked = asked
        self._records = record_directory(connection.uri)
        self._copies: dict[str, Copy] = {}
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._figures: dict[str, Copied] = {}  # of live copies, until they are asked for

    async def run(self, vm_id: str, way: Way, progress: Callable[[Progress], None]) -> Copied:
        """Copy; on cancellation stop the copy first, and wait for its end."""
        if vm_id in self._copies:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"VM {vm_id} is being copied already")
        plan = await self._connection.call(lambda conn: copy_plan.prepare(conn, vm_id, way))
        if way.terms.gated and self._gate is not None:
            await self._gate.arm(vm_id)
        self._figures.pop(vm_id, None)
        await self._asked.begins(vm_id)
        copy = Copy(self._connection, self._clock, vm_id, plan, progress, self._records, self._gate)
        self._copies[vm_id] = copy
        ending = asyncio.create_task(self._bury(copy), name=f"copy of {vm_id}")
        self._endings[vm_id] = ending
        try:
            return await copy.run()
        except asyncio.CancelledError:
            await copy.stop()
            await asyncio.shield(ending)
            raise
        except (Refusal, TimeoutError) as error:
            await asyncio.shield(ending)
            raise await self._truth(vm_id, error) from error

    def is_over(self, vm_id: str) -> bool:
        """Proven to be over here, though libvirt has not cleared it away yet."""
        copy = self._copies.get(vm_id)
        return copy is not None and copy.proven

    async def is_proven(self, vm_id: str) -> bool:
        """Wait until one that was held is over, or its copy has failed."""
        copy = self._copies.get(vm_id)
        if copy is not None:
            await copy.decided()
        return self.is_over(vm_id)

    def copied(self, vm_id: str, stats: Mapping[str, Any]) -> None:
        """libvirt is through with a copy, and says how it went."""
        copy = self._copies.get(vm_id)
        if copy is None:
            return
        copy.completed(stats)
        if copy.plan.terms.kind is MoveKind.LIVE:
            self._figures[vm_id] = copy.figures
            for forgotten in list(self._figures)[:-_FIGURES]:
                del self._figures[forgotten]

    async def last_figures(self, vm_id: str) -> Copied | None:
        copy = self._copies.get(vm_id)
        if copy is not None and copy.plan.terms.kind is MoveKind.LIVE:
            await copy.figured()
        return self._figures.pop(vm_id, None)

    def is_under_way(self, vm_id: str) -> bool:
        return vm_id in self._copies

    def switching(self, vm_id: str) -> None:
        """Its guest stands still: of a live copy, that is the end's beginning."""
        copy = self._copies.get(vm_id)
        if copy is not None and copy.plan.terms.kind is MoveKind.LIVE:
            copy.switching.set()

    async def abort(self, vm_id: str) -> None:
        """Also a copy that an agent before us asked for."""
        if copy := self._copies.get(vm_id):
            await copy.stop()
        else:
            await self._asked.stop(vm_id)

    async def buried(self, vm_id: str) -> None:
        """Wait until libvirt has cleared it away."""
        if ending := self._endings.get(vm_id):
            await asyncio.shield(ending)

    async def close(self) -> None:
        """Leave copies to libvirt: they end by themselves, one way or the other."""
        endings = list(self._endings.values())
        for ending in endings:
            ending.cancel()
        if endings:
            await asyncio.wait(endings)

    async def _bury(self, copy: Copy) -> None:
        """Wait for libvirt's own end of a copy; then put back what a failed one has changed, or
        take away what a good one has left."""
        try:
            await asyncio.wait({copy.ending})
            await self._asked.ended(copy.vm_id, copy.ending)
            if copy.ending.exception() is not None and not copy.proven:
                await self._restore(copy)
            elif copy.proven:
                await self._discard(copy)
            if copy.ending.exception() is None and copy.plan.terms.kind is MoveKind.LIVE:
                await copy.figured()  # who cleans up tells them
            await self._leave_gate(copy)
        finally:
            await copy.close()
            del self._copies[copy.vm_id], self._endings[copy.vm_id]
            self._on_change(copy.vm_id)

    async def _leave_gate(self, copy: Copy) -> None:
        """A source that is held after a copy that failed stays so, until somebody decides."""
        if self._gate is None or not copy.plan.terms.gated:
            return
        if copy.ending.exception() is None or not self._gate.holds(copy.vm_id):
            await self._gate.forget(copy.vm_id)

    async def _restore(self, copy: Copy) -> None:
        try:
            await self._connection.call(copy.plan.restore)
        except (Refusal, TimeoutError) as error:
            _log.warning("VM %s keeps the limits of its copy: %s", copy.vm_id, error)

    async def _discard(self, copy: Copy) -> None:
        if copy.ending.exception() is not None:
            _log.error("VM %s has moved, but: %s", copy.vm_id, copy.ending.exception())
        try:
            await self._connection.call(lambda conn: changing.discard(conn, copy.vm_id))
        except (Refusal, TimeoutError) as error:
            _log.error("VM %s has moved, and its definition is still here: %s", copy.vm_id, error)

    async def _truth(self, vm_id: str, error: Refusal | TimeoutError) -> Exception:
        """A copy failed only if the VM is here; else nobody knows, and the caller must look."""
        try:
            here = await self._connection.call(lambda conn: domains.is_active(conn, vm_id))
        except (Refusal, TimeoutError):
            here = False
        return error if here else TimeoutError(f"after a failed copy, VM {vm_id}: {error}")
