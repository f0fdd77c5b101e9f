"""Guests that come here from another host: a QEMU that waits for memory, paused and marked.

Only a guest that this host was told to expect is taken in (`expect`, at the move's first step), so
that who merely reaches the port can start nothing. The answers to `confirm` and `give_up` decide
the move's end when the source's agent has lost sight of it, and each is given under the guest's
lock: `give_up` removes what has not run, and says "runs" of what has; it cannot be both.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import closing, suppress
from typing import Any

from pydantic import ValidationError

from common.errors import Refusal
from vserver.core.taps import PREFIX
from vserver.hypervisor.qemu import launching
from vserver.hypervisor.qemu.command import tap_name
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.disks import MADE
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.home import HELD, Home, Launch
from vserver.hypervisor.qemu.mirror import export, stop_exports
from vserver.hypervisor.qemu.monitor import Monitor
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.watched import OVER, Watched
from vserver.hypervisor.qemu.wire import LIMIT, Address, Line

_MAX_EXPECTED, _MAX_LINES = 1024, 64
_HANDSHAKE = 10.0  # seconds
_ARRIVES_WITHIN = 20.0  # after the source has sent everything
_log = logging.getLogger(__name__)


class Arrivals:
    def __init__(self, guests: Guests, address: Address | None, secrecy: Secrecy) -> None:
        self._guests = guests
        self._secrecy = secrecy
        self._address = address
        self._expected: dict[str, bool] = {}  # whether it is held
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self._address is None:
            return
        self._server = await asyncio.start_server(
            self._serve, self._address.host, self._address.port, limit=LIMIT
        )

    async def close(self) -> None:
        """Guests that are on their way go on: QEMU itself sees to that."""
        if self._server:
            self._server.close()
        for line in list(self._lines):
            line.cancel()
        if self._lines:
            await asyncio.wait(self._lines)

    def expect(self, vm_id: str) -> None:
        while len(self._expected) >= _MAX_EXPECTED:
            del self._expected[next(iter(self._expected))]
        self._expected[vm_id] = False

    def hold(self, vm_id: str) -> bool:
        """It may be told to run before the last of its memory is here, and waits for that then."""
        if self._address is None or vm_id not in self._expected:
            return False
        self._expected[vm_id] = True
        return True

    def forget(self, vm_id: str) -> None:
        self._expected.pop(vm_id, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        line = Line(reader, writer)
        self._lines.add(task)
        taken: set[str] = set()
        try:
            if len(self._lines) > _MAX_LINES or not await self._trusts(writer):
                return
            while question := await line.hear():
                await line.say(await self._answer(question, taken))
        except (OSError, ValueError, Refusal) as error:
            _log.warning("a peer's line: %s", error)
        finally:
            self._lines.discard(task)
            line.close()
            for vm_id in taken:
                await self._end_if_nothing_comes(vm_id)

    async def _trusts(self, writer: asyncio.StreamWriter) -> bool:
        """Whether it is an agent; after that, nobody else reads what is said."""
        if context := self._secrecy.accept():
            await writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE)
        if heard := self._secrecy.hears(writer):
            return heard
        _log.warning("%s is no agent of ours", writer.get_extra_info("peername"))
        return False

    async def _answer(self, question: dict[str, Any], taken: set[str]) -> dict[str, Any]:
        try:
            match question:
                case {"take": launch, "next": after, "devices": devices}:
                    planned = Launch.model_validate_json(launch)
                    taken.add(planned.definition.uuid)
                    following = Definition.model_validate_json(after)
                    numbers = question.get("disks", [])
                    return await self._take(planned, following, devices, numbers)
                case {"keep": definition}:
                    await self._keep(Definition.model_validate_json(definition))
                    return {"state": "kept"}
                case {"confirm": vm_id}:
                    return {"state": await self._confirm(str(vm_id))}
                case {"give_up": vm_id}:
                    return {"state": await self.give_up(str(vm_id))}
                case {"ran": vm_id}:
                    return {"ago_ms": await self._ran_ago_ms(str(vm_id))}
            return {"refused": "not a question that this agent knows"}
        except ValidationError as error:
            return {"refused": f"not a guest: {error.errors()[0]['msg']}"}
        except Refusal as error:
            return {"refused": error.message}
        except (TimeoutError, OSError, ValueError) as error:
            return {"refused": str(error) or "it took too long"}

    async def _take(
        self, source: Launch, after: Definition, devices: dict[str, str], numbers: list[int]
    ) -> dict[str, Any]:
        """Everything that the destination needs, ready; the ports on which QEMU waits for memory,
        and for what belongs on these disks."""
        definition = source.definition
        vm_id = definition.uuid
        if vm_id not in self._expected or self._address is None:
            raise refused(f"guest {vm_id} is not expected here")
        here = await launching.accelerator(self._guests.homes, self._guests.clock)
        if here != source.accelerator:
            raise refused(f"the guest runs by {source.accelerator}, which is not to be had here")
        planned = source.model_copy(update={"taps": _taps(definition, devices)})
        home = self._guests.homes.of(vm_id)
        self._guests.arriving.add(vm_id)
        try:
            with home.alone():
                if await self._guests.runs(vm_id):
                    raise refused(f"guest {vm_id} runs here already")
                word = HELD if self._expected.get(vm_id) else ""
                await asyncio.to_thread(home.mark, "incoming", word)
                await asyncio.to_thread(home.define, after)
                for mark in ("standing", "leaving", HELD):
                    home.unmark(mark)
                return await self._started(vm_id, planned, numbers)
        except BaseException:
            with suppress(TimeoutError):
                await asyncio.shield(self._undo(home))
            raise
        finally:
            self._guests.arriving.discard(vm_id)
            self.forget(vm_id)

    async def _keep(self, definition: Definition) -> None:
        """A guest that is off: what it is becomes ours, and nothing is started."""
        vm_id = definition.uuid
        if vm_id not in self._expected:
            raise refused(f"guest {vm_id} is not expected here")
        home = self._guests.homes.of(vm_id)
        with home.alone():
            if await self._guests.runs(vm_id):
                raise refused(f"guest {vm_id} runs here already")
            for mark in ("incoming", "standing", "leaving", HELD):
                home.unmark(mark)
            await asyncio.to_thread(home.define, definition)
        self.forget(vm_id)
        self._guests.changed(vm_id)

    async def _undo(self, home: Home) -> None:
        if home.has("incoming"):
            await launching.end(home)
            await asyncio.to_thread(home.remove)

    async def _started(self, vm_id: str, planned: Launch, numbers: list[int]) -> dict[str, Any]:
        assert self._address is not None
        await launching.run(self._guests.homes.of(vm_id), planned, incoming=True)
        watched = await self._guests.watched(vm_id)
        if watched is None:
            raise refused("QEMU has ended")
        await launching.unlimit(watched.monitor)
        await self._secrecy.takes(watched.monitor)
        disks = await self._exported(watched.monitor, numbers) if numbers else 0
        events = [{"capability": "events", "state": True}]
        await watched.monitor.execute("migrate-set-capabilities", capabilities=events)
        await watched.monitor.execute("migrate-incoming", uri=self._address.memory_uri(0))
        [waits] = (await watched.monitor.execute("query-migrate"))["socket-address"]
        self._guests.changed(vm_id)
        return {"port": int(waits["port"]), "disks": disks}

    async def _exported(self, monitor: Monitor, numbers: list[int]) -> int:
        """The port at which these disks are written to."""
        assert self._address is not None
        host = self._address.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with closing(socket.create_server((host, 0), family=family)) as listener:
            await export(monitor, listener.fileno(), numbers, self._secrecy.credentials)
            return int(listener.getsockname()[1])

    async def _confirm(self, vm_id: str) -> str:
        """`arrived`, `runs` or `absent`; waits while the last of it is being loaded."""
        home = self._guests.homes.of(vm_id)
        if not await self._guests.runs(vm_id):
            return "absent"
        watched = await self._guests.watched(vm_id)
        if watched is None:
            raise TimeoutError("its QEMU does not answer")
        if not home.has("incoming"):
            return "runs"
        if watched.migration != "completed" and await watched.monitor.status() == "inmigrate":
            async with asyncio.timeout(_ARRIVES_WITHIN):
                if await watched.migration_in({"completed", OVER}) == OVER:
                    return "absent"
        if home.has(MADE):
            await stop_exports(watched.monitor)
        return "arrived"

    async def _ran_ago_ms(self, vm_id: str) -> float:
        """How long ago it ran here first, after its arrival."""
        runs = await self._guests.runs(vm_id)
        watched = await self._guests.watched(vm_id) if runs else None
        if watched is None or watched.ran_at is None:
            raise refused(f"this agent has not seen guest {vm_id} begin to run here")
        return (self._guests.clock.monotonic() - watched.ran_at) * 1000

    async def whole(self, watched: Watched) -> None:
        """Return when all of its memory is here, and nobody else writes to its disks. Of one that
        is held the last may be coming, and not for long: what has not come by then is given up, so
        that its source may have it back."""
        if watched.migration != "completed" and await _is_arriving(watched):
            await self._await_the_last(watched)
        if watched.home.has(MADE):
            await stop_exports(watched.monitor)

    async def _await_the_last(self, watched: Watched) -> None:
        home = watched.home
        if await asyncio.to_thread(home.file("incoming").read_text) != HELD:
            raise refused("the guest's memory is still arriving")
        with suppress(TimeoutError):
            async with asyncio.timeout(_ARRIVES_WITHIN):
                if await watched.migration_in({"completed", "failed", OVER}) == "completed":
                    return
        await self.give_up(home.vm_id)
        raise refused("the last of the guest's memory did not come; what had come is given up")

    async def give_up(self, vm_id: str) -> str:
        """`absent` when there is no copy of it here any more, `runs` when it has run here."""
        home = self._guests.homes.of(vm_id)
        self.forget(vm_id)
        runs = await self._guests.runs(vm_id)
        if not home.path.exists():
            return "runs" if runs else "absent"
        with home.alone():
            runs = await self._guests.runs(vm_id)
            if runs and not home.has("incoming"):
                return "runs"
            if runs:
                await launching.end(home)
            if home.has("incoming"):
                await asyncio.to_thread(home.remove)
        self._guests.changed(vm_id)
        return "absent"

    async def _end_if_nothing_comes(self, vm_id: str) -> None:
        """Once memory flows, QEMU ends by itself when it stops coming."""
        with suppress(Refusal, TimeoutError, OSError):
            watched = await self._guests.watched(vm_id)
            if watched is None or not watched.home.has("incoming"):
                return
            if watched.migration in ("active", "completed"):
                return
            status = (await watched.monitor.execute("query-migrate")).get("status", "none")
            if status in ("none", "setup"):
                watched.process.kill()


async def _is_arriving(watched: Watched) -> bool:
    """Events tell more quickly, but only of what has come since this agent listens."""
    return watched.migration != "" or await watched.monitor.status() == "inmigrate"


def _taps(definition: Definition, devices: dict[str, str]) -> dict[str, str]:
    """Ports are closed by default for devices of this prefix, so no other name will do."""
    macs = [nic.mac for nic in definition.interface]
    taps = {mac: devices.get(mac) or tap_name(definition.uuid, mac) for mac in macs}
    if strange := [tap for tap in taps.values() if not (tap.startswith(PREFIX) and tap.isalnum())]:
        raise refused(f"no name for a tap here: {strange[0]!r}")
    return taps
