"""What a person does to the guests of this host, with or without a running agent.

Through the files and each QEMU's second monitor; then the agent's bell is rung.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from common.clock import Clock
from common.errors import Reason, Refusal
from vserver.hypervisor.qemu import bell, launching, process
from vserver.hypervisor.qemu.definition import Definition, assignment
from vserver.hypervisor.qemu.disks import MADE
from vserver.hypervisor.qemu.guests import refused
from vserver.hypervisor.qemu.home import STANDBY, Home, Homes
from vserver.hypervisor.qemu.monitor import at_hand

_OFF = "shut-off"
_POLL = 0.1
_SNAPSHOT_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Seen:
    """`state` is QEMU's word (`running`, `paused` …) or `shut-off`; `note` what is special."""

    definition: Definition
    state: str
    note: str = ""


class Hand:
    def __init__(self, homes: Homes, clock: Clock) -> None:
        self._homes = homes
        self._clock = clock

    async def list(self) -> list[Seen]:
        self._homes.make()
        defined = [(home, home.definition()) for home in self._homes.all()]
        return [await self._seen(home, d) for home, d in defined if d]

    async def show(self, key: str) -> Seen:
        home, definition = self._find(key)
        return await self._seen(home, definition)

    def define(self, definition: Definition) -> None:
        """A new guest, or what an old one shall be at its next start."""
        try:
            assignment(definition)
        except ValueError as error:
            raise Refusal(Reason.INVALID_FIELD, str(error)) from error
        self._homes.make()
        for home in self._homes.all():
            other = home.definition()
            if other and other.name == definition.name and other.uuid != definition.uuid:
                raise refused(f"guest {other.uuid} bears the name {definition.name}")
        with self._changing(self._homes.of(definition.uuid)) as home:
            home.define(definition)

    async def undefine(self, key: str) -> None:
        home, _ = self._find(key)
        with self._changing(home):
            if await self._runs(home):
                raise refused(f"guest {key} runs; stop it first")
            home.remove()

    async def start(self, key: str) -> None:
        home, definition = self._find(key)
        with self._changing(home):
            if await self._runs(home):
                raise refused(f"guest {key} runs already")
            self._refuse_if_moving(home)
            kind = await launching.accelerator(self._homes, self._clock)
            await launching.launch(home, definition, kind)

    async def stop(self, key: str, *, within: float) -> None:
        """Press its power button, and wait; 0 seconds: pull the plug. Already off is no error."""
        home, _ = self._find(key)
        with self._changing(home):
            self._refuse_if_moving(home)
            if within and await self._runs(home):
                async with at_hand(home.file("hand"), home.vm_id) as monitor:
                    await monitor.execute("system_powerdown")
                await self._gone(home, key, within)
            await launching.end(home)

    async def suspend(self, key: str) -> None:
        await self._tell(key, "stop")

    async def resume(self, key: str) -> None:
        await self._tell(key, "cont")

    async def change(self, key: str, vcpus: int | None, memory_mib: int | None) -> bool:
        """Another size, from its next start on. Whether it must be stopped and started for that."""
        home, definition = self._find(key)
        wanted = {"vcpus": vcpus, "memory_mib": memory_mib}
        changes = {name: value for name, value in wanted.items() if value is not None}
        changed = Definition.model_validate(definition.model_dump() | changes)
        with self._changing(home):
            home.define(changed)
            launch = home.launch()
            return await self._runs(home) and launch is not None and launch.definition != changed

    async def snapshot(self, key: str, tag: str) -> None:
        """Memory and disks, into its first writable qcow2 disk; the guest stands still for it."""
        home, _ = self._find(key)
        self._refuse_if_moving(home)
        launch = home.launch()
        if launch is None or not await self._runs(home):
            raise refused(f"guest {key} does not run")
        disks = [
            f"disk{number}"
            for number, disk in enumerate(launch.definition.disk)
            if not disk.read_only
        ]
        formats = {disk.format for disk in launch.definition.disk if not disk.read_only}
        if formats != {"qcow2"}:
            raise refused("a snapshot needs a disk, and every writable disk in the format qcow2")
        job = f"snapshot-{tag}"
        async with at_hand(home.file("hand"), home.vm_id) as monitor:
            await monitor.execute(
                "snapshot-save", job_id=job, tag=tag, vmstate=disks[0], devices=disks
            )
            async with asyncio.timeout(_SNAPSHOT_PATIENCE):
                while True:
                    jobs = await monitor.execute("query-jobs")
                    [mine] = [each for each in jobs if each["id"] == job]
                    if mine["status"] == "concluded":
                        break
                    await self._clock.sleep(_POLL)
            await monitor.execute("job-dismiss", id=job)
        if "error" in mine:
            raise refused(f"QEMU: snapshot: {mine['error']}")

    def _find(self, key: str) -> tuple[Home, Definition]:
        for home in self._homes.all():
            definition = home.definition()
            if definition and key in (definition.name, definition.uuid):
                return home, definition
        raise Refusal(Reason.UNKNOWN_VM, f"no guest {key!r} here; `vserver guest list` shows all")

    @contextmanager
    def _changing(self, home: Home) -> Iterator[Home]:
        with home.alone():
            yield home
        bell.ring(self._homes.root, home.vm_id)

    async def _seen(self, home: Home, definition: Definition) -> Seen:
        found = process.find(home)
        if found is None:
            note = "may run elsewhere" if home.has("leaving") else ""
            return Seen(definition, _OFF, note)
        found.close()
        try:
            async with at_hand(home.file("hand"), home.vm_id) as monitor:
                state = await monitor.status()
        except TimeoutError:
            state = "silent"
        launch = home.launch()
        seen = Seen(definition, state)
        if home.has("incoming") or home.has("leaving"):
            return replace(seen, note="is being moved")
        changed = launch is not None and launch.definition != definition
        return replace(seen, note="changed: stop and start it" if changed else "")

    async def _runs(self, home: Home) -> bool:
        found = await asyncio.to_thread(process.search, home)
        if found:
            found.close()
        return found is not None

    def _refuse_if_moving(self, home: Home) -> None:
        """The one mistake that makes two of one guest."""
        if home.has(STANDBY):
            raise refused("its disks are a standby's, and not its own: see `vctl vm promote`")
        if home.has("leaving"):
            to = home.file("leaving").read_text()
            raise refused(
                f"its copy to {to} began, and nobody knows yet how that ended: it may run there. "
                f"Once you know that it does not, remove {home.file('leaving')}"
            )
        if home.has("incoming"):
            raise refused("it is arriving from another host; the move will start it")
        if home.has(MADE):
            raise refused("its disks are being copied here; the move will end that")

    async def _tell(self, key: str, command: str) -> None:
        home, _ = self._find(key)
        with self._changing(home):
            self._refuse_if_moving(home)
            if not await self._runs(home):
                raise refused(f"guest {key} does not run")
            async with at_hand(home.file("hand"), home.vm_id) as monitor:
                await monitor.execute(command)

    async def _gone(self, home: Home, key: str, within: float) -> None:
        found = process.find(home)
        if found is None:
            return
        try:
            await process.ended(found, within)
        except TimeoutError:
            raise refused(
                f"guest {key} has not ended {within:g} s after its power button; `--now` ends it"
            ) from None
        finally:
            found.close()
