"""One QMP connection; QEMU's refusals in its own words, its silence as TimeoutError."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

from common.errors import Reason, Refusal

PATIENCE = 5.0
ATTEMPTS = 3  # to open a monitor, one right after the other
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what fails is raised, and told by us


class Monitor:
    """Open it with `connect`, and `close` it. QEMU serves one at a time a socket."""

    def __init__(self) -> None:
        self._client = QMPClient("guest")

    async def connect(self, socket: Path, vm_id: str) -> None:
        """Also makes sure that it is this guest that answers."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._negotiate(str(socket))
        except (QMPError, OSError) as error:
            raise TimeoutError(f"QEMU of guest {vm_id} does not answer: {error}") from error
        answering = (await self.execute("query-uuid"))["UUID"]
        if answering != vm_id:
            await self.close()
            raise Refusal(Reason.HYPERVISOR_FAILED, f"at {socket} guest {answering} answers")

    async def _negotiate(self, socket: str) -> None:
        """What QEMU still had to say to who was here last may come first, and is no answer."""
        for _ in range(ATTEMPTS - 1):
            with suppress(QMPError):
                await self._client.connect(socket)
                return
        await self._client.connect(socket)

    async def close(self) -> None:
        with suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._client.disconnect()

    async def execute(self, command: str, patience: float = PATIENCE, **arguments: Any) -> Any:
        """QMP's names have hyphens: write `downtime_limit` for `downtime-limit`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            async with asyncio.timeout(patience):
                return await self._client.execute(command, named or None)
        except ExecuteError as error:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"QEMU: {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise TimeoutError(f"QEMU did not answer to {command}: {error}") from error

    async def give(self, name: str, descriptor: int) -> None:
        """QEMU has this open file, too, and knows it by the name."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise TimeoutError(f"QEMU took no file: {error}") from error
        await self.execute("getfd", fdname=name)

    async def status(self) -> str:
        return str((await self.execute("query-status"))["status"])

    @property
    def alive(self) -> bool:
        return self._client.runstate is Runstate.RUNNING

    def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """What QEMU tells by itself, from the connection's beginning on. One consumer."""
        return self._client.events.__aiter__()


@asynccontextmanager
async def at_hand(socket: Path, vm_id: str) -> AsyncIterator[Monitor]:
    """For one piece of work."""
    monitor = Monitor()
    await monitor.connect(socket, vm_id)
    try:
        yield monitor
    finally:
        await monitor.close()
