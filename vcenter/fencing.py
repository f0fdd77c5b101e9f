"""Fence devices, and the task that works through the fences that the ledger says are under way.

Switching a host off twice is harmless, so a vCenter that starts goes on with the fences that
another began. Whatever a device does not say in time is unknown, and unknown is not fenced.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from common.clock import Clock
from common.errors import Refusal
from common.model.operation import Operation, Phase
from vcenter.config import FenceSettings, Ipmi
from vcenter.core.fence import FenceAnswered, fences
from vcenter.ledger.feed import Committed
from vcenter.ledger.ledger import Ledger

log = structlog.get_logger()

MAX_SAID = 500  # characters of a device's words that are kept
AGAIN_S = 1.0
POLL_S = 1.0
_OFF = "chassis power is off"


class NotFenced(Exception):
    """The device did not say that the host is off; its words."""


class Fencer:
    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        settings: FenceSettings,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_ours`: whether this replica, of several, is the one that works through them."""
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._is_ours = is_ours
        self._wake = asyncio.Event()
        self._wake.set()
        self._working: set[str] = set()
        ledger.feed.listen(self._committed, Operation)

    def has_device(self, server_id: str) -> bool:
        return bool(self._settings.command) or server_id in self._settings.ipmi

    async def run(self) -> None:
        """For ever; owns one task a fence."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                under_way = list(fences(self._ledger.table))
                if under_way and not self._is_ours():
                    await self._clock.sleep(AGAIN_S)  # whose they are may die
                    self._wake.set()
                    continue
                for fence in under_way:
                    if fence.operation_id not in self._working:
                        self._working.add(fence.operation_id)
                        tasks.create_task(self._carry_out(fence))

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, Operation) and change.after.phase is Phase.FENCING:
                self._wake.set()

    async def _carry_out(self, fence: Operation) -> None:
        failure = ""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self._fence(fence.source)
        except TimeoutError:
            failure = f"no answer in {self._settings.timeout_seconds:g} s: unknown"
        except (NotFenced, OSError) as error:
            failure = str(error)[:MAX_SAID]
        log.warning("fence", server=fence.source, fenced=not failure, said=failure or None)
        try:
            await self._told(FenceAnswered(fence.operation_id, failure))
        finally:
            self._working.discard(fence.operation_id)

    async def _told(self, answer: FenceAnswered) -> None:
        while True:
            try:
                await self._ledger.submit(answer)
                return
            except Refusal as refusal:
                log.warning("fence not recorded yet", reason=refusal.message)
                await self._clock.sleep(AGAIN_S)

    async def _fence(self, server_id: str) -> None:
        ipmi = self._settings.ipmi.get(server_id)
        if ipmi is not None:
            await self._by_ipmi(ipmi)
            return
        server = self._ledger.table.must_server(server_id)
        known = {"server_id": server_id, "management_address": server.management_address}
        words = self._settings.command
        if not words:
            raise NotFenced("no fence device is configured for it any more")
        await said_by([_filled(word, known) for word in words])

    async def _by_ipmi(self, ipmi: Ipmi) -> None:
        """Off is what the controller reads back, not what it was told."""
        tool = ["ipmitool", "-I", "lanplus", "-H", ipmi.address, "-U", ipmi.user]
        tool += ["-f", str(ipmi.password_file), "chassis", "power"]
        await said_by([*tool, "off"])
        while _OFF not in (await said_by([*tool, "status"])).lower():
            await self._clock.sleep(POLL_S)


def _filled(word: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(f"{{{name}}}", value)
    return word


async def said_by(argv: list[str]) -> str:
    """Run it to its end, its children with it if nobody waits any more. Raises `NotFenced`."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()  # its end, and that of its pipe
    said = output.decode(errors="replace")
    if process.returncode != 0:
        raise NotFenced(f"{argv[0]} ended with {process.returncode}: {said[-MAX_SAID:].strip()}")
    return said
