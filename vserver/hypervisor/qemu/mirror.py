"""Disks that are written to their copies, too, while their guest runs: QEMU's mirror jobs.

Once all are in step, what the guest writes reaches both. At the gate, where it stands still, the
jobs are ended, and with that the copies are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from common.clock import Clock
from common.errors import Refusal
from vserver.hypervisor.qemu.guests import refused
from vserver.hypervisor.qemu.monitor import Monitor
from vserver.hypervisor.qemu.wire import Address

# How writes reach the copy: some time later, or before the guest hears that they are done.
AT_LEISURE, SYNCHRONOUS = "background", "write-blocking"
_PREFIX = "copy"
_POLL, _POLL_AT_THE_GATE = 0.1, 0.002
_ENDS_WITHIN = 30.0


class Mirrors:
    """`numbers`: which of the guest's disks. `total` and `done` are bytes, as of the last look."""

    def __init__(
        self, monitor: Monitor, clock: Clock, numbers: Sequence[int], mode: str = AT_LEISURE
    ) -> None:
        self.total = self.done = 0
        self._monitor = monitor
        self._clock = clock
        self._numbers = numbers
        self._mode = mode

    async def begin(
        self, address: Address, port: int, credentials: str, exports: Sequence[int]
    ) -> None:
        """`credentials`: QEMU's certificate; "": in clear. `exports`: how the other end numbers
        these disks."""
        server = {"type": "inet", "host": address.host, "port": str(port)}
        secret: dict[str, Any] = {}
        if credentials:
            secret = {"tls_creds": credentials, "tls_hostname": address.name}
        for number, export in zip(self._numbers, exports, strict=True):
            name = f"{_PREFIX}{number}"
            await self._monitor.execute(
                "blockdev-add",
                driver="nbd",
                node_name=name,
                server=server,
                export=f"disk{export}",
                **secret,
            )
            await self._monitor.execute(
                "blockdev-mirror",
                job_id=name,
                device=f"disk{number}",
                target=name,
                sync="full",
                copy_mode=self._mode,
                auto_dismiss=False,
            )

    async def in_step(self, told: Callable[[], None]) -> None:
        """Return when all copies are as their disks. `told` at every look; it may raise."""
        while not await self.look():
            told()
            await self._clock.sleep(_POLL)
        told()

    async def look(self) -> bool:
        """Whether all are in step. Raises if one has ended: then its copy is not whole."""
        jobs = await _under_way(self._monitor)
        self.total, self.done, ready = _sum(jobs)
        return len(jobs) == len(self._numbers) and ready

    async def finish(self) -> None:
        """At the gate: the copies are whole when this returns."""
        if not await self.look():
            raise refused("the copies of its disks are not in step")
        await end(self._monitor, self._clock, _POLL_AT_THE_GATE)


async def end(monitor: Monitor, clock: Clock, poll: float = _POLL, *, force: bool = False) -> None:
    """No disk is mirrored any more. Raises, unless it is by force, if a copy is not whole."""
    for job in await _jobs(monitor):
        if job["status"] != "concluded":
            await monitor.execute("block-job-cancel", device=job["id"], force=force)
    latest = clock.monotonic() + _ENDS_WITHIN
    jobs = await _jobs(monitor)
    while not all(job["status"] == "concluded" for job in jobs):
        if clock.monotonic() > latest:
            raise TimeoutError("QEMU does not end the copies of the disks")
        await clock.sleep(poll)
        jobs = await _jobs(monitor)
    for job in jobs:
        await monitor.execute("job-dismiss", id=job["id"])
    for node in await monitor.execute("query-named-block-nodes", flat=True):
        if str(node.get("node-name", "")).startswith(_PREFIX):
            await monitor.execute("blockdev-del", node_name=node["node-name"])
    problems = [str(error) for job in jobs if (error := job.get("error"))]
    if problems and not force:
        raise refused(f"the copy of a disk failed: {problems[0]}")


async def seen(monitor: Monitor) -> tuple[int, int, bool]:
    """Bytes in all and done, and whether all are in step. Raises if there is none, or one ended."""
    jobs = await _under_way(monitor)
    if not jobs:
        raise refused("no disk is mirrored")
    return _sum(jobs)


async def _under_way(monitor: Monitor) -> list[dict[str, Any]]:
    jobs = await _jobs(monitor)
    for job in jobs:
        if job["status"] == "concluded":
            raise refused(f"the copy of a disk ended: {job.get('error', 'nobody says why')}")
    return jobs


def _sum(jobs: Sequence[dict[str, Any]]) -> tuple[int, int, bool]:
    total = sum(job["total-progress"] for job in jobs)
    done = sum(job["current-progress"] for job in jobs)
    return total, done, all(job["status"] == "ready" for job in jobs)


async def _jobs(monitor: Monitor) -> list[dict[str, Any]]:
    return [j for j in await monitor.execute("query-jobs") if j["id"].startswith(_PREFIX)]


async def export(monitor: Monitor, listener: int, numbers: Sequence[int], credentials: str) -> None:
    """At the destination: serve these disks, empty yet, at this listening socket."""
    await monitor.give("disks", listener)
    address = {"type": "fd", "data": {"str": "disks"}}
    secret: dict[str, Any] = {"tls_creds": credentials} if credentials else {}
    await monitor.execute("nbd-server-start", addr=address, **secret)
    for number in numbers:
        name = f"disk{number}"
        await monitor.execute(
            "block-export-add",
            type="nbd",
            id=f"export{number}",
            node_name=name,
            name=name,
            writable=True,
        )


async def stop_exports(monitor: Monitor) -> None:
    """What has arrived is written to by its own guest only."""
    with suppress(Refusal):  # there is none: it was stopped before
        await monitor.execute("nbd-server-stop")
