"""One copy of a guest to another host, from the source's side.

The source's QEMU stops at a gate before it lets go (`pause-before-switchover`): up to there a copy
can be called off and the guest runs on. Past it the guest stands still here until one of two things
is sure. Either the destination's agent has confirmed that everything is there: then this QEMU is
ended, by a signal that nothing survives, and only then is the copy told as done, so that the ledger
changes owners while neither side runs. Or the destination has nothing: then it runs on here. While
neither can be learned it stands still, for nothing is worse than two. The mark `leaving` outlives
the agent, so that the next one, or a person, knows of it.

A gated copy is told earlier, as held: when QEMU has sent everything. Not at the gate, for QEMU runs
the guest on by itself, whatever it was told there, if sending fails after that. So it stops at the
gate only where disks wait to be made whole. See `held`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from common.clock import Clock
from common.errors import Refusal
from common.model.budget import IfOver
from common.model.operation import MoveKind, Progress
from common.wake import first_of
from vserver.core.pace import Pace
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms
from vserver.hypervisor.qemu import disks, figures, mirror
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.guests import refused
from vserver.hypervisor.qemu.home import HELD, Home, Launch
from vserver.hypervisor.qemu.mirror import Mirrors
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.watched import OVER, Watched
from vserver.hypervisor.qemu.wire import Address, Line

_log = logging.getLogger(__name__)
GATE, DONE = "pre-switchover", "completed"
_FAILED = frozenset({"failed", "cancelled", OVER})
_TAKE_PATIENCE, _CONFIRM_PATIENCE, _CANCEL_PATIENCE = 60.0, 30.0, 15.0
_RAN_PATIENCE = 5.0
_POLL, _POLL_BACK = 0.1, 0.01


class Departure:
    def __init__(
        self,
        watched: Watched,
        destination: str,
        secrecy: Secrecy,
        clock: Clock,
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> None:
        self.watched = watched
        self.over = False  # proven: it will never run here again
        self.held = False  # it stands still here until somebody says that it may run
        self.ended = asyncio.Event()
        self._address = Address.parse(destination)
        self._destination = destination
        self._secrecy = secrecy
        self._clock = clock
        self._progress = progress
        self._called_off = False
        self._limit = 0
        self._terms = terms
        self._gated = terms.gated and terms.kind is MoveKind.LIVE
        self._pace = Pace(terms.budget)
        self._began = clock.monotonic()
        self._mirrors: Mirrors | None = None
        self._over_budget: Refusal | None = None

    async def run(self, devices: Mapping[str, str]) -> Copied:
        """Return on proof, or `held` and with its figures still to be asked for; raise `Refusal`
        when the guest runs on here, TimeoutError when nobody can say."""
        home, monitor = self.watched.home, self.watched.monitor
        launch = await asyncio.to_thread(home.launch)
        after = await asyncio.to_thread(home.definition)
        if launch is None or await monitor.status() != "running":
            raise refused(f"guest {home.vm_id} does not run here")
        line = await self._line()
        try:
            await asyncio.to_thread(self._mark, home)
            try:
                if self._terms.kind is MoveKind.SUSPEND:
                    await asyncio.to_thread(home.mark, "standing")
                    await monitor.execute("stop")
                await self._transfer(line, launch, after or launch.definition, devices)
            except BaseException:
                await asyncio.shield(self._back())
                raise
            if self._gated:
                self.held = True
                return Copied(0, 0.0, 0)
            state = await self._asked(line, "confirm")
            copied = await self._decided(state, await self.copied())
            if self._terms.kind is MoveKind.SUSPEND:
                return replace(copied, downtime_ms=self._seconds() * 1000)
            return copied
        finally:
            line.close()

    async def finish(self, *, give_up: bool) -> Copied:
        """Of a copy that an agent before this one has sent: go forward, or back if that is still
        possible. Whichever it is, the destination's agent decides it."""
        try:
            line = await self._line()
        except Refusal as error:
            raise TimeoutError(error.message) from error
        try:
            state = await self._asked(line, "give_up" if give_up else "confirm")
            return await self._decided(state, await self.copied())
        finally:
            line.close()

    async def call_off(self) -> None:
        """It ends soon, unless it is past the gate: then it has ended in a moment anyway."""
        self._called_off = True
        if self.watched.migration in ("setup", "active", GATE):
            with suppress(Refusal, TimeoutError):
                await self.watched.monitor.execute("migrate_cancel")

    def _mark(self, home: Home) -> None:
        if self._gated:
            home.mark(HELD)
        else:
            home.unmark(HELD)
        home.mark("leaving", self._destination)

    async def _line(self) -> Line:
        return await Line.connect(self._address, self._secrecy.dial(self._address))

    async def _transfer(
        self, line: Line, launch: Launch, after: Definition, devices: Mapping[str, str]
    ) -> None:
        """Until everything is sent; raises while the guest can still run on here."""
        watched, monitor = self.watched, self.watched.monitor
        numbers = disks.numbers(launch.definition, self._terms.disks)
        answer = await line.ask(
            _TAKE_PATIENCE,
            take=launch.model_dump_json(),
            next=after.model_dump_json(),
            devices=dict(devices),
            disks=numbers,
        )
        watched.migration = ""
        await self._secrecy.sends(monitor, self._address)
        if numbers:
            self._mirrors = Mirrors(monitor, self._clock, numbers)
            port, credentials = int(answer["disks"]), self._secrecy.credentials
            await self._mirrors.begin(self._address, port, credentials, numbers)
            await self._mirrors.in_step(self._disks_go_on)
        await self._prepare_memory()
        await monitor.execute("migrate", uri=self._address.memory_uri(int(answer["port"])))
        telling = asyncio.create_task(self._tell())
        try:
            reached = await watched.migration_in({GATE, DONE, *_FAILED})
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        if reached == GATE and not (self._called_off or self._over_budget):
            if self._mirrors:
                await self._mirrors.finish()
            await monitor.execute("migrate-continue", state=GATE)
            reached = await watched.migration_in({DONE, *_FAILED})
        if reached != DONE:
            raise await self._why(reached)

    async def _prepare_memory(self) -> None:
        wanted = {
            "events": True,
            "pause-before-switchover": not self._gated or self._mirrors is not None,
            "auto-converge": self._terms.budget.if_over is IfOver.SLOW,
        }
        capabilities = [{"capability": name, "state": on} for name, on in wanted.items()]
        await self.watched.monitor.execute("migrate-set-capabilities", capabilities=capabilities)
        await self._give_way(0)

    def _disks_go_on(self) -> None:
        """At every look at them, as long as the guest's memory has to wait."""
        assert self._mirrors is not None
        if self._called_off:
            raise refused("the copy was called off")
        self._pace.allowed_ms(0, self._seconds())
        self._progress(figures.with_disks(Progress(), self._mirrors))

    def _seconds(self) -> float:
        return self._clock.monotonic() - self._began

    async def _asked(self, line: Line, verb: str) -> str:
        """What the destination has. From here on any other answer, or none, proves nothing."""
        try:
            answer = await line.ask(_CONFIRM_PATIENCE, **{verb: self.watched.home.vm_id})
        except Refusal as error:
            raise TimeoutError(error.message) from error
        return str(answer.get("state"))

    async def _decided(self, state: str, copied: Copied) -> Copied:
        if state in ("arrived", "runs"):
            self.over = True
            self.watched.process.kill()
            return copied
        if state != "absent":
            raise TimeoutError(f"the destination's agent calls the guest {state}")
        await self.watched.monitor.execute("cont")
        await stays(self.watched, self._clock)
        raise refused("the destination lost the copy; the guest runs on here")

    async def _back(self) -> None:
        """The guest runs on here, whatever part of the copy was under way."""
        watched = self.watched
        if watched.over:
            return
        try:
            if watched.migration and watched.migration not in _FAILED:
                await watched.monitor.execute("migrate_cancel")
                async with asyncio.timeout(_CANCEL_PATIENCE):
                    if await watched.migration_in({DONE, *_FAILED}) == DONE:
                        return  # too late: the mark stays, and `finish` will ask
            while await watched.monitor.status() == "finish-migrate":
                await self._clock.sleep(_POLL_BACK)
            await stays(watched, self._clock)
        except (Refusal, TimeoutError) as error:
            _log.warning("guest %s: %s", watched.home.vm_id, error)

    async def _why(self, reached: str) -> Refusal | TimeoutError:
        if reached == OVER:
            return refused("the guest's QEMU ended during its copy")
        if self._over_budget is not None:
            return self._over_budget
        if self._called_off:
            return refused("the copy was called off")
        said = await self.watched.monitor.execute("query-migrate")
        return refused(f"the copy {reached}: {said.get('error-desc', 'QEMU does not say why')}")

    async def _tell(self) -> None:
        while True:
            with suppress(TimeoutError):
                try:
                    await self._look()
                except Refusal as error:
                    self._over_budget = error
                    await self.watched.monitor.execute("migrate_cancel")
                    return
            await self._clock.sleep(_POLL)

    async def _look(self) -> None:
        """Raises `Refusal` where the copy is to end."""
        seen = await self.watched.monitor.execute("query-migrate")
        if self._mirrors:
            await self._mirrors.look()
        if ram := seen.get("ram"):
            self._progress(figures.progress(ram, self._mirrors))
            await self._give_way(ram.get("dirty-sync-count", 0))

    async def _give_way(self, rounds: int) -> None:
        limit = self._pace.allowed_ms(rounds, self._seconds())
        if limit != self._limit:
            self._limit = limit
            await self.watched.monitor.execute("migrate-set-parameters", downtime_limit=limit)

    async def copied(self) -> Copied:
        """QEMU's last figures; zeros where it gives none."""
        with suppress(Refusal, TimeoutError):
            seen = await self.watched.monitor.execute("query-migrate")
            if ram := seen.get("ram", {}):
                self._progress(figures.progress(ram, self._mirrors))
            return self._with_budget(figures.copied(seen, ram), seen)
        return Copied(0, 0.0, 0)

    async def stood_still_ms(self) -> float:
        """From its stop here to its start over there, each by its own agent's clock, less half of
        what question and answer took. Raises where the other agent has not seen it start."""
        if self.watched.stopped_at is None:
            raise refused("its stop was not seen")
        line = await self._line()
        try:
            asked = self._clock.monotonic()
            answer = await line.ask(_RAN_PATIENCE, ran=self.watched.home.vm_id)
            heard = self._clock.monotonic()
        finally:
            line.close()
        since_ms = (heard - self.watched.stopped_at - (heard - asked) / 2) * 1000
        return since_ms - float(answer["ago_ms"])

    def _with_budget(self, copied: Copied, seen: Mapping[str, Any]) -> Copied:
        of_disks = sum(disk.used for disk in self._terms.disks)
        return replace(
            copied,
            bytes=copied.bytes + of_disks,
            disk_bytes=of_disks,
            slowed_percent=int(seen.get("cpu-throttle-percentage", 0)),
            suspended=self._pace.suspended,
        )


async def stays(watched: Watched, clock: Clock) -> None:
    """Its copy has come to nothing: it runs on here, also where it was stopped for it."""
    await mirror.end(watched.monitor, clock, force=True)
    if watched.home.has("standing"):
        await watched.monitor.execute("cont")
        watched.home.unmark("standing")
    watched.home.unmark("leaving")
    watched.home.unmark(HELD)


async def is_sent(watched: Watched) -> bool:
    """A copy of it has left, and for that it stands still here: QEMU has nothing more to send, and
    does not let it run on by itself any more."""
    if not watched.home.has("leaving"):
        return False
    seen = await watched.monitor.execute("query-migrate")
    return seen.get("status") == DONE and await watched.monitor.status() != "running"


async def is_over(watched: Watched) -> bool:
    """QEMU sends nothing of it any more, whether or not all has been sent."""
    seen = await watched.monitor.execute("query-migrate")
    return seen.get("status") in (DONE, "failed", "cancelled")


async def until_ended(departure: Departure, clock: Clock, again: float) -> None:
    """Call it off until it has ended: it may just be beginning."""
    while not departure.ended.is_set():
        await departure.call_off()
        await first_of(departure.ended.wait(), clock.sleep(again))
