"""`Hypervisor` on QEMU itself. Guests are made by `vserver guest`, and outlive every agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from common.clock import Clock
from common.errors import Refusal
from common.model.disk import Disk
from common.model.operation import HostedState, Progress
from common.model.server import ServerStatus
from common.model.vm import VmState
from vserver.hypervisor import receiver
from vserver.hypervisor.changes import EVERYTHING, Changes
from vserver.hypervisor.load import Sample, load
from vserver.hypervisor.metadata import AttachmentRules
from vserver.hypervisor.port import (
    NO_LUGGAGE,
    PLAIN,
    Copied,
    CopyTerms,
    HostedVm,
    HostFacts,
    Luggage,
    VmUsage,
)
from vserver.hypervisor.qemu import disks as own_disks
from vserver.hypervisor.qemu import host, launching
from vserver.hypervisor.qemu.arrivals import Arrivals
from vserver.hypervisor.qemu.bell import Bell
from vserver.hypervisor.qemu.cold import Cold
from vserver.hypervisor.qemu.departures import Departures
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.hand import Hand
from vserver.hypervisor.qemu.home import Homes
from vserver.hypervisor.qemu.secrecy import Clear, Secrecy
from vserver.hypervisor.qemu.standby import QemuStandbys
from vserver.hypervisor.qemu.wire import Address
from vserver.hypervisor.qemu.writing import writing
from vserver.hypervisor.sampling import Sampling
from vserver.hypervisor.standby import Standbys

_log = logging.getLogger(__name__)
_LOOK_AGAIN = 0.5


class QemuHypervisor:
    """`root`: the directory of guests. `migration_uri`: where this host hears of arrivals, in
    QEMU's words `qmp+tcp://HOST:PORT`; without it none can arrive. `secrecy`: of copies."""

    def __init__(
        self,
        root: Path,
        clock: Clock,
        rules: AttachmentRules | None = None,
        migration_uri: str = "",
        secrecy: Secrecy | None = None,
    ) -> None:
        self._clock = clock
        self._homes = Homes(root)
        self._changes = Changes()
        self._guests = Guests(self._homes, clock, rules or AttachmentRules(), self._changes.add)
        address = Address.parse(migration_uri) if migration_uri else None
        self._secrecy = secrecy or Clear()
        self._arrivals = Arrivals(self._guests, address, self._secrecy)
        self._departures = Departures(self._guests, self._secrecy, clock)
        self._standbys = (
            QemuStandbys(self._guests, address, self._secrecy)
            if address is not None and receiver.available()
            else None
        )
        self._cold = Cold(self._guests, address, self._secrecy)
        self._bell = Bell(root, self._changes.add)
        self._facts: HostFacts | None = None
        self._sample: Sample | None = None
        self._lost = asyncio.Event()
        self._sampling = Sampling(clock, self._running, self._writing)
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def standbys(self) -> Standbys | None:
        return self._standbys

    @property
    def carries_disks(self) -> bool:
        return self._cold.carries_disks

    async def open(self) -> None:
        self._homes.make()
        self._bell.open()
        await self._guests.open()
        await self._arrivals.open()
        await self._departures.open()
        self._keepers = [
            asyncio.create_task(self._keep(), name="guests' directory"),
            asyncio.create_task(self._sampling.run(), name="how fast guests write"),
        ]

    async def close(self) -> None:
        self._changes.close()
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        await self._arrivals.close()
        await self._departures.close()
        self._bell.close()
        await self._guests.close()

    async def facts(self) -> HostFacts:
        """Also without `open`."""
        if self._facts is None:
            self._homes.make()
            kind = await launching.accelerator(self._homes, self._clock)
            self._facts = await host.facts(kind)
        return self._facts

    async def list(self) -> Sequence[HostedVm]:
        with self._noticing():
            found = await self._guests.list()
        return [hosted for hosted in found if not self._is_leaving(hosted.vm.vm_id)]

    async def get(self, vm_id: str) -> HostedVm | None:
        if self._is_leaving(vm_id):
            return None
        with self._noticing():
            return await self._guests.get(vm_id)

    def _is_leaving(self, vm_id: str) -> bool:
        return self._departures.is_over(vm_id) or self._departures.held.is_leaving(vm_id)

    def events(self) -> AsyncIterator[str]:
        return self._changes

    async def usage(self) -> tuple[ServerStatus, Mapping[str, VmUsage]]:
        pids = self._guests.pids()
        now = await asyncio.to_thread(host.sample, self._clock.monotonic(), pids)
        before, self._sample = self._sample, now
        status, usage = load(before, now)
        noted = self._sampling.noted(usage)
        sizes = await asyncio.to_thread(self._sizes)
        return status, {
            vm_id: replace(noted.get(vm_id, VmUsage(0.0, 0)), disks=sizes.get(vm_id, {}))
            for vm_id in {*noted, *sizes}
        }

    def _sizes(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        found: dict[str, Mapping[str, tuple[int, int]]] = {}
        for home in self._homes.all():
            with suppress(Refusal):  # said where the guest is read
                if sizes := own_disks.sizes(home):
                    found[home.vm_id] = sizes
        return found

    async def _running(self) -> Sequence[str]:
        return tuple(self._guests.pids())

    async def _writing(self, vm_id: str) -> float | None:
        watched = await self._guests.watched(vm_id)
        return await writing(watched, self._clock) if watched else None

    async def hosted(self, vm_id: str) -> HostedState:
        if self._departures.is_over(vm_id):
            return HostedState.ABSENT
        try:
            if await self._departures.held.holds(vm_id):
                return HostedState.HELD
            with self._noticing():
                runs = await self._guests.runs(vm_id)
        except (Refusal, TimeoutError, OSError) as error:
            _log.warning("is guest %s here? %s", vm_id, error)
            return HostedState.UNKNOWN
        return HostedState.RUNNING if runs else HostedState.ABSENT

    async def shut_down(self, vm_id: str) -> bool:
        """A QEMU that has ended leaves no word of why."""
        return False

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        return await self._departures.run(vm_id, destination_uri, devices, progress, terms)

    async def last_figures(self, vm_id: str) -> Copied | None:
        """Of one that was held; of others all are known when `migrate` returns."""
        return await self._departures.held.last_figures(vm_id)

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        await self._departures.buried(vm_id)
        port = await self._cold.take(vm_id, disks)
        self._arrivals.expect(vm_id)
        return port

    async def hand_over(
        self, vm_id: str, destination_uri: str, luggage: Luggage = NO_LUGGAGE
    ) -> None:
        await self._cold.hand_over(vm_id, destination_uri, luggage)

    async def settle(self, vm_id: str) -> None:
        await self._cold.settle(vm_id)

    async def keeps(self, vm_id: str) -> bool:
        if self._departures.is_over(vm_id):
            return False
        with self._noticing():
            return await self._cold.keeps(vm_id)

    async def ask_off(self, vm_id: str) -> None:
        if watched := await self._guests.watched(vm_id):
            await watched.monitor.execute("system_powerdown")

    async def power_on(self, vm_id: str) -> None:
        if not await self._guests.runs(vm_id):
            await Hand(self._homes, self._clock).start(vm_id)

    async def abort(self, vm_id: str) -> None:
        self._cold.abort(vm_id)
        await self._departures.abort(vm_id)

    async def make_way(self, vm_id: str, disks: Sequence[Disk] = ()) -> None:
        await self._departures.buried(vm_id)
        await self._cold.take_no_more(vm_id)
        if disks:
            await own_disks.make(self._homes.of(vm_id), disks)
        self._arrivals.expect(vm_id)

    async def drop_disks(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """Only what is in the guest's own folder."""
        await self._departures.buried(vm_id)
        if await self._guests.runs(vm_id):
            raise refused(f"guest {vm_id} runs here; its disks are not removed")
        home = self._homes.of(vm_id)
        await asyncio.to_thread(own_disks.remove, home, [disk.path for disk in disks])
        await asyncio.to_thread(home.fold)

    async def hold(self, vm_id: str) -> bool:
        """Only we start what arrives, and by its mark only when it is told so (see `arrivals`)."""
        return self._arrivals.hold(vm_id)

    def kept(self) -> Collection[str]:
        """None: nobody is kept from starting but what stands here."""
        return ()

    async def give_up(self, vm_id: str) -> None:
        """See `kept`."""

    async def resume(self, vm_id: str) -> None:
        """The mark goes first: what bears it may be discarded, and what has run may not."""
        watched = await self._guests.watched(vm_id)
        if watched is None:
            raise refused(f"there is no running guest {vm_id} here")
        if watched.home.has("leaving"):
            await self._departures.take_back(vm_id)
            return
        status = "paused"
        if watched.home.has("incoming"):
            await self._arrivals.whole(watched)
        elif (status := await watched.monitor.status()) == "inmigrate":
            raise refused("the guest's memory is still arriving")
        with watched.home.alone():
            own_disks.keep(watched.home)
            watched.home.unmark("incoming")
            if status != "running":
                await watched.monitor.execute("cont")

    async def discard(self, vm_id: str) -> None:
        if self._departures.is_over(vm_id):
            return  # clearing it away is under way
        if await self._departures.held.holds(vm_id):
            await self._departures.held.end(vm_id)
            return
        if await self._arrivals.give_up(vm_id) == "runs":
            found = await self._guests.get(vm_id)
            state = found.state if found else VmState.RUNNING
            raise refused(f"the guest is {state} here; it is not discarded")
        home = self._homes.of(vm_id)
        if home.path.exists():
            await self._cold.take_no_more(vm_id)
            await asyncio.to_thread(home.remove)
            await asyncio.to_thread(own_disks.clear, home)
        self._changes.add(vm_id)

    def _noticing(self) -> _Noticing:
        return _Noticing(self._homes, self._lost)

    async def _keep(self) -> None:
        """While the directory is away nothing is known; when it is back, anything may be new."""
        while True:
            await self._lost.wait()
            while self._lost.is_set():
                await self._clock.sleep(_LOOK_AGAIN)
                with suppress(Refusal):
                    self._homes.check()
                    self._lost.clear()
            self._bell.open()
            self._changes.add(EVERYTHING)


class _Noticing:
    """Whether a refusal came because the directory is away."""

    def __init__(self, homes: Homes, lost: asyncio.Event) -> None:
        self._homes = homes
        self._lost = lost

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refusal):
            try:
                self._homes.check()
            except Refusal:
                self._lost.set()
