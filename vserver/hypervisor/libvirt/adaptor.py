"""`Hypervisor` on libvirt/QEMU: the fleet's existing hosts, their VMs made by anyone with virsh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, Progress
from common.model.server import ServerStatus
from common.model.vm import VmState
from vserver.hypervisor import acceleration, sender
from vserver.hypervisor.changes import Changes
from vserver.hypervisor.libvirt import changing, cold, domains, host, writing
from vserver.hypervisor.libvirt.asked import Asked
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.copies import Copies
from vserver.hypervisor.libvirt.copy_plan import Way
from vserver.hypervisor.libvirt.gate.keeper import Keeper
from vserver.hypervisor.libvirt.hands import LibvirtHands
from vserver.hypervisor.libvirt.held import Held
from vserver.hypervisor.libvirt.luggage import LibvirtLuggage
from vserver.hypervisor.libvirt.standby import LibvirtStandbys, Reception
from vserver.hypervisor.libvirt.subscription import What
from vserver.hypervisor.libvirt.volumes import Storage, Volumes
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
from vserver.hypervisor.sampling import READY_AFTER, Sampling
from vserver.hypervisor.standby import Standbys

_log = logging.getLogger(__name__)
_FACTS_PATIENCE, _DISCARD_PATIENCE, _START_PATIENCE = 120.0, 60.0, 60.0
_STILL = (VmState.PAUSED, VmState.INCOMING)


class LibvirtHypervisor:
    """One libvirtd. `asked`: a directory, of notes on copies that libvirt has not answered for yet.
    `accelerates` says `kvm` or `tcg`; by default a guest is booted to find out.
    `encrypt`: copies go by TLS, to peers whose URI names them (`…#DNS-NAME`), and in no other way.
    `keeper`: we are this libvirtd's lock manager, and may hold VMs at the gate. `storage`: where
    disks may be copied to; without it none are. `reception`: of standbys' disks; likewise.
    """

    def __init__(
        self,
        uri: str,
        clock: Clock,
        asked: Path,
        rules: AttachmentRules | None = None,
        accelerates: Callable[[], Awaitable[str]] | None = None,
        encrypt: bool = False,
        keeper: Keeper | None = None,
        storage: Storage | None = None,
        reception: Reception | None = None,
    ) -> None:
        self._clock = clock
        self._rules = rules or AttachmentRules()
        self._accelerates = accelerates or (lambda: acceleration.probe(clock))
        self._changes = Changes()
        self._connection = Connection(uri, clock, self._on_event, self._on_copied)
        self._encrypt = encrypt
        self._volumes = Volumes(self._connection, storage) if storage else None
        self._standbys: LibvirtStandbys | None = None
        self._luggage: LibvirtLuggage | None = None
        if self._volumes is not None and reception is not None:
            parts = self._connection, self._volumes, reception
            self._standbys = LibvirtStandbys(*parts)
            self._luggage = LibvirtLuggage(*parts) if sender.available() else None
        self._keeper = keeper
        gate = keeper.gate if keeper else None
        self._asked = Asked(self._look_leaving, clock, asked)
        self._copies = Copies(self._connection, clock, self._changes.add, gate, self._asked)
        hands = LibvirtHands(self._connection)
        self._held = Held(hands, clock, self._copies, gate) if gate else None
        self._facts: HostFacts | None = None
        self._sample: Sample | None = None
        self._sampling = Sampling(clock, self._running, self._writing)
        self._sampler: asyncio.Task[None] | None = None

    @property
    def standbys(self) -> Standbys | None:
        return self._standbys

    @property
    def carries_disks(self) -> bool:
        return self._luggage is not None

    async def open(self) -> None:
        """The gate first: a libvirtd that starts guests by itself asks there."""
        await self._asked.load()
        if self._keeper is not None:
            await self._keeper.open()
        try:
            await self._connection.open()
        except BaseException:
            await self._close_gate()
            raise
        if self._held is not None:
            await self._held.look_again()
        self._sampler = asyncio.create_task(self._sampling.run(), name="how fast guests write")

    async def _close_gate(self) -> None:
        if self._keeper is not None:
            await self._keeper.close()

    async def close(self) -> None:
        self._changes.close()
        if self._sampler:
            self._sampler.cancel()
            await asyncio.wait({self._sampler})
        await self._close_gate()
        if self._held is not None:
            await self._held.close()
        await self._copies.close()
        await self._connection.close()

    async def facts(self) -> HostFacts:
        """Asked once: the answer takes seconds, and changes only with the host's software."""
        if self._facts is None:
            kind = await self._accelerates()
            self._facts = await self._connection.call(
                lambda conn: host.read_facts(conn, kind), patience=_FACTS_PATIENCE
            )
        return self._facts

    async def list(self) -> Sequence[HostedVm]:
        found = await self._connection.call(lambda conn: domains.read_all(conn, self._rules))
        return [self._shown(hosted) for hosted in found if not self._is_leaving(hosted.vm.vm_id)]

    async def get(self, vm_id: str) -> HostedVm | None:
        if self._is_leaving(vm_id):
            return None
        found = await self._connection.call(lambda conn: domains.read_one(conn, vm_id, self._rules))
        return self._shown(found) if found is not None else None

    def _is_leaving(self, vm_id: str) -> bool:
        held = self._held is not None and self._held.is_leaving(vm_id)
        return held or self._copies.is_over(vm_id)

    def _shown(self, found: HostedVm) -> HostedVm:
        held = self._held is not None and self._held.stands(found.vm.vm_id)
        return replace(found, state=VmState.INCOMING) if held and found.state in _STILL else found

    def events(self) -> AsyncIterator[str]:
        return self._changes

    async def usage(self) -> tuple[ServerStatus, Mapping[str, VmUsage]]:
        at = self._clock.monotonic()
        now = await self._connection.call(lambda conn: host.sample(conn, at))
        before, self._sample = self._sample, now
        status, usage = load(before, now)
        return status, self._sampling.noted(usage)

    async def _running(self) -> Sequence[str]:
        return await self._connection.call(domains.running)

    async def _writing(self, vm_id: str) -> float | None:
        if not await self._connection.call(lambda conn: writing.begin(conn, vm_id)):
            return None
        await self._clock.sleep(READY_AFTER)
        return await self._connection.call(lambda conn: writing.seen(conn, vm_id))

    async def hosted(self, vm_id: str) -> HostedState:
        """While libvirt still buries what a copy left, it does not answer, and we have proof."""
        if self._copies.is_over(vm_id):
            return HostedState.ABSENT
        if self._held is not None and self._held.is_leaving(vm_id):
            return HostedState.HELD
        try:
            active = await self._connection.call(lambda conn: domains.is_active(conn, vm_id))
        except (Refusal, TimeoutError) as error:
            _log.warning("is VM %s here? %s", vm_id, error)
            return HostedState.UNKNOWN
        if active and self._held is not None and self._held.has_back(vm_id):
            return HostedState.HELD
        return HostedState.RUNNING if active else HostedState.ABSENT

    async def shut_down(self, vm_id: str) -> bool:
        if self._copies.is_over(vm_id):
            return False
        return await self._connection.call(lambda conn: domains.shut_down(conn, vm_id))

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        gated = terms.gated and self._held is not None and terms.kind is MoveKind.LIVE
        way = Way(destination_uri, devices, replace(terms, gated=gated), self._encrypt)
        copied = await self._copies.run(vm_id, way, progress)
        if await self.hosted(vm_id) not in (HostedState.ABSENT, HostedState.HELD):
            raise TimeoutError(f"libvirt calls the copy done, but VM {vm_id} is not off here")
        return copied

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        await self._copies.buried(vm_id)
        if self._luggage is None:
            raise Refusal(Reason.HYPERVISOR_FAILED, "this host takes no disks")
        return await self._luggage.take(vm_id, disks)

    async def hand_over(
        self, vm_id: str, destination_uri: str, luggage: Luggage = NO_LUGGAGE
    ) -> None:
        if luggage.disks:
            if self._luggage is None:
                raise Refusal(Reason.HYPERVISOR_FAILED, "this host sends no disks")
            await self._luggage.send(vm_id, destination_uri, luggage)
        await self._asked.begins(vm_id)
        work = self._connection.copy(lambda conn: cold.hand_over(conn, vm_id, destination_uri))
        try:
            await asyncio.shield(work)  # libvirt goes on with it, whoever stops waiting
        finally:
            if work.done():
                await self._asked.ended(vm_id, work)

    async def settle(self, vm_id: str) -> None:
        if self._luggage is not None:
            await self._luggage.take_no_more(vm_id)
        if self._volumes is not None:
            await self._volumes.keep(vm_id)

    async def keeps(self, vm_id: str) -> bool:
        if self._copies.is_over(vm_id):
            return False
        return await self._connection.call(lambda conn: cold.keeps(conn, vm_id))

    async def ask_off(self, vm_id: str) -> None:
        await self._connection.call(lambda conn: cold.ask_off(conn, vm_id))

    async def power_on(self, vm_id: str) -> None:
        await self._connection.call(
            lambda conn: cold.power_on(conn, vm_id), patience=_START_PATIENCE
        )

    async def abort(self, vm_id: str) -> None:
        if self._luggage is not None:
            self._luggage.abort(vm_id)
        await self._copies.abort(vm_id)

    async def _look_leaving(self, vm_id: str, tell: bool) -> changing.Leaving:
        return await self._connection.call(lambda conn: changing.stop_leaving(conn, vm_id, tell))

    async def make_way(self, vm_id: str, disks: Sequence[Disk] = ()) -> None:
        await self._copies.buried(vm_id)
        if self._luggage is not None:
            await self._luggage.take_no_more(vm_id)
        if disks:
            await self._made_by().make(vm_id, disks)

    async def drop_disks(self, vm_id: str, disks: Sequence[Disk]) -> None:
        await self._copies.buried(vm_id)
        await self._made_by().drop(vm_id, disks)

    def _made_by(self) -> Volumes:
        if self._volumes is None:
            text = "no directory for copied disks is configured here (libvirt.disks)"
            raise Refusal(Reason.HYPERVISOR_FAILED, text)
        return self._volumes

    async def hold(self, vm_id: str) -> bool:
        return self._held is not None and await self._held.expect(vm_id)

    def kept(self) -> Collection[str]:
        return self._held.kept() if self._held is not None else ()

    async def give_up(self, vm_id: str) -> None:
        if self._held is not None:
            await self._held.give_up(vm_id)

    async def resume(self, vm_id: str) -> None:
        """What was made for it is its own before it runs: what has run is not thrown away."""
        if self._volumes is not None:
            await self._volumes.keep(vm_id)
        if self._held is None or not await self._held.let_run(vm_id):
            await self._connection.call(lambda conn: changing.resume(conn, vm_id))

    async def discard(self, vm_id: str) -> None:
        if self._copies.is_over(vm_id):
            return  # clearing it away is under way
        if self._held is None or not await self._held.end(vm_id):
            await self._connection.call(
                lambda conn: changing.discard(conn, vm_id), patience=_DISCARD_PATIENCE
            )
        if self._luggage is not None:
            await self._luggage.take_no_more(vm_id)
        if self._volumes is not None:
            await self._volumes.clear(vm_id)

    async def last_figures(self, vm_id: str) -> Copied | None:
        return await self._copies.last_figures(vm_id)

    def _on_copied(self, vm_id: str, stats: Mapping[str, Any]) -> None:
        self._copies.copied(vm_id, stats)

    def _on_event(self, vm_id: str, what: What) -> None:
        if what is What.STOPPED_FOR_SWITCH:
            self._copies.switching(vm_id)
        if self._held is not None:
            self._held.news(vm_id)
        self._changes.add(vm_id)
