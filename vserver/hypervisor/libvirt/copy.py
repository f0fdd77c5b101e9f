"""One copy of a guest from here to a peer, until the source will not run on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import MoveKind, Progress
from vserver.core.pace import Pace
from vserver.hypervisor.libvirt import changing
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.copy_plan import CopyPlan
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.source_process import SourceProcess
from vserver.hypervisor.libvirt.waiting import first, seen
from vserver.hypervisor.port import Copied, writing

_POLL = 0.1
_ASK_AGAIN = 0.2
_FIGURES_WITHIN = 5.0


class Copy:
    """`run` it; `stop` ends it from elsewhere. `ending` is libvirt's own end of it."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        vm_id: str,
        plan: CopyPlan,
        progress: Callable[[Progress], None],
        records: Path | None,
        gate: Gate | None,
    ) -> None:
        self.vm_id = vm_id
        self.plan = plan
        self.switching = asyncio.Event()
        self.proven = False
        self._connection = connection
        self._clock = clock
        self._progress = progress
        self._records = records
        self._gate = gate if plan.terms.gated else None
        self._pace = Pace(plan.terms.budget)
        self._limit = plan.terms.budget.allowed_ms(0)
        self._over_budget: Refusal | None = None
        self.figures = Copied(0, 0.0, 0)
        self._figured = asyncio.Event()
        self._began = clock.monotonic()
        self._all_sent = False
        self._process: SourceProcess | None = None
        self._confirmed: asyncio.Task[None] | None = None
        self.ending: asyncio.Future[None] = connection.copy(plan.carry_out)
        self.ending.add_done_callback(seen)

    async def run(self) -> Copied:
        """Return on proof that the VM is over here, or held; raise as soon as libvirt says that it
        failed."""
        self._process = await asyncio.to_thread(
            SourceProcess.find, self._records, self.plan.name, self.vm_id
        )
        watching = asyncio.create_task(self._watch())
        proof = asyncio.create_task(self._proof())
        try:
            await asyncio.wait({self.ending, proof}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, proof):
                task.cancel()
            await asyncio.wait({watching, proof})
        if self._is_held():
            self._confirmed = asyncio.create_task(self._confirm())
            return self.figures
        if self.ending.done():
            if self._over_budget is not None and self.ending.exception() is not None:
                raise self._over_budget
            self.ending.result()
        self.proven = True
        if self.plan.terms.kind is MoveKind.SUSPEND:
            still_ms = (self._clock.monotonic() - self._began) * 1000
            return replace(self.figures, downtime_ms=still_ms)
        return self.figures

    async def decided(self) -> None:
        """Return when it is proven to be over here, or has ended."""
        waiting: set[asyncio.Future[None]] = {self.ending}
        await asyncio.wait(
            waiting | ({self._confirmed} if self._confirmed is not None else set()),
            return_when=asyncio.FIRST_COMPLETED,
        )

    async def close(self) -> None:
        """After the end."""
        if self._confirmed is not None:
            self._confirmed.cancel()
            await asyncio.wait({self._confirmed})
        if self._process is not None:
            self._process.close()

    async def stop(self) -> None:
        """Ask until it has ended: before the transfer libvirt has no ear for it.

        Once a live copy's guest stands still, or all is sent, it is too late: libvirt (9.0) was
        seen to wait forever after an abort in that moment, and the copy is over in a few
        milliseconds anyway.
        """
        while not (self.proven or self._is_held() or self.ending.done()):
            if not (self.switching.is_set() or self._all_sent):
                with suppress(Refusal, TimeoutError):
                    await self._connection.call(lambda conn: changing.abort(conn, self.vm_id))
            await first(self._clock, _ASK_AGAIN, (self.ending,))

    def _is_held(self) -> bool:
        return self._gate is not None and self._gate.holds(self.vm_id)

    async def _proof(self) -> None:
        """Where there is no early proof, libvirt's own end of the copy is waited for."""
        if self._gate is not None:
            await self.switching.wait()
            if self._gate.shut(self.vm_id):
                return
        if self._process is None:
            await asyncio.wait({self.ending})
            return
        await self.switching.wait()
        await self._process.all_sent(self._clock)
        last_look = asyncio.create_task(self._look())
        last_look.add_done_callback(seen)
        try:
            await self._process.end_for_good(self._clock)
        finally:
            last_look.cancel()
            await asyncio.wait({last_look})

    async def _confirm(self) -> None:
        """What was held is over as soon as libvirt has it that the destination runs."""
        if self._process is not None:
            await self._process.end_for_good(self._clock)
            self.proven = True

    async def _watch(self) -> None:
        """Tell progress until the guest stands still. From then on a look would only take time
        from those who work on the switch; the last figures are read when all has been sent."""
        switching = asyncio.ensure_future(self.switching.wait())
        try:
            while not (self.ending.done() or switching.done()):
                with suppress(Refusal, TimeoutError):
                    await self._look()
                    await self._give_way()
                await first(self._clock, _POLL, (switching, self.ending))
        finally:
            switching.cancel()

    async def _look(self) -> None:
        stats = await self._connection.call(
            lambda conn: conn.lookupByUUIDString(self.vm_id).jobStats()
        )
        if stats.get("type") != libvirt.VIR_DOMAIN_JOB_NONE and stats.get("data_total"):
            self._progress(self._note(stats, downtime=0.0))  # that is known in the end

    def completed(self, stats: Mapping[str, Any]) -> None:
        """libvirt's last figures. Its downtime is from the source's last instruction to the
        destination's first; without the time that a word took from one to the other, and with it
        whatever their clocks differ by, where libvirt says so."""
        downtime = stats.get("downtime_net", stats.get("downtime", 0))
        self._note(stats, max(float(downtime), 1.0))  # it counts whole ms, so also less
        self._figured.set()

    async def figured(self) -> None:
        """After the end: they come with it, by another way."""
        waiting = asyncio.ensure_future(self._figured.wait())
        try:
            await first(self._clock, _FIGURES_WITHIN, (waiting,))
        finally:
            waiting.cancel()

    def _note(self, stats: Mapping[str, Any], downtime: float) -> Progress:
        progress = Progress(
            bytes_total=stats.get("data_total", 0),
            bytes_processed=stats.get("data_processed", 0),
            bytes_remaining=stats.get("data_remaining", 0),
            bytes_per_second=float(stats.get("memory_bps", 0)),
            iteration=stats.get("memory_iteration", 0),
            disk_bytes_total=stats.get("disk_total", 0),
            disk_bytes_processed=stats.get("disk_processed", 0),
        )
        of_disks = sum(disk.used for disk in self.plan.terms.disks)
        of_memory = progress.bytes_processed - progress.disk_bytes_processed
        self.figures = Copied(
            of_memory + of_disks,
            downtime,
            progress.iteration,
            progress.bytes_per_second,
            _writing(stats, of_memory, progress.bytes_per_second),
            of_disks,
            int(stats.get("auto_converge_throttle", self.figures.slowed_percent)),
            self._pace.suspended,
        )
        self._all_sent = progress.bytes_processed > 0 and progress.bytes_remaining == 0
        return progress

    async def _give_way(self) -> None:
        seconds = self._clock.monotonic() - self._began
        try:
            limit = self._pace.allowed_ms(self.figures.iterations, seconds)
        except Refusal as error:
            self._over_budget = error
            await self._connection.call(lambda conn: changing.abort(conn, self.vm_id))
            return
        if limit > self._limit and not self.switching.is_set():
            self._limit = limit
            await self._connection.call(
                lambda conn: conn.lookupByUUIDString(self.vm_id).migrateSetMaxDowntime(limit)
            )


def _writing(stats: Mapping[str, Any], sent: int, bytes_per_second: float) -> float:
    pages = stats.get("memory_normal", 0) + stats.get("memory_constant", 0)
    passed = pages * stats.get("memory_page_size", 0)
    memory = stats.get("memory_total", 0)
    return writing(passed, memory, sent, bytes_per_second)
