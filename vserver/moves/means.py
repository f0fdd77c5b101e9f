"""What every step of a move works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.operation import HostedState, MoveStep, Progress
from common.model.vm import VmState
from common.model.wanted import MoveOrder, WantedVm
from vserver.core.diff import ApplyNetwork, laid
from vserver.core.epochs import Epochs
from vserver.core.readback import policy_in_force
from vserver.core.wanted import Wanted
from vserver.dataplane import DataPlane
from vserver.guests import FAILURES, Guests
from vserver.hypervisor.port import Copied, Hypervisor
from vserver.network.port import Port

PROGRESS_EVERY = 0.2  # seconds
RUNS = frozenset({VmState.RUNNING, VmState.PAUSED})


@dataclass(slots=True)
class Job:
    """One order being carried out. `stop`: something else is wanted of the VM now."""

    vm_id: str
    order: MoveOrder
    stop: asyncio.Event = field(default_factory=asyncio.Event)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """All of it, to its end. Raises what failed first in order, when everything has ended."""
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if failure is not None:
            raise failure


@dataclass(frozen=True, slots=True)
class Found:
    """What a step that went well has to say, besides the truth."""

    policy_hash: str = ""
    copied: Copied = Copied(0, 0.0, 0)
    gated: bool = False
    port: int = 0
    definition: bytes = b""


@dataclass(frozen=True, slots=True)
class Means:
    """The parts of the agent that a move needs.

    `news` returns at the next change of what is wanted; `progress` may drop what it is told.
    """

    wanted: Wanted
    epochs: Epochs
    guests: Guests
    plane: DataPlane
    hypervisor: Hypervisor
    clock: Clock
    news: Callable[[], Awaitable[None]]
    progress: Callable[[str, Progress], None]

    def wanted_of(self, job: Job) -> WantedVm:
        wanted = self.wanted.vms.get(job.vm_id)
        if wanted is None:
            raise Refusal(Reason.CANCELLED_BY_USER, "the order was taken back")
        return wanted

    async def truth(self, job: Job) -> HostedState:
        """What a host has to say with its answer to an order. SHUT_OFF, at a live move's source:
        nobody has taken the VM away. Of a VM that is moved while it is off: it is defined here."""
        truth = await self.guests.truth(job.vm_id)
        if truth is not HostedState.ABSENT:
            return truth
        if job.order.kind.off:
            return await self._truth_of_definition(job.vm_id)
        if job.order.step not in (MoveStep.COPY, MoveStep.ABORT):
            return truth
        try:
            stays = await self.hypervisor.shut_down(job.vm_id)
        except FAILURES:
            stays = False
        return HostedState.SHUT_OFF if stays else HostedState.ABSENT

    async def _truth_of_definition(self, vm_id: str) -> HostedState:
        try:
            kept = await self.hypervisor.keeps(vm_id)
        except FAILURES:
            return HostedState.UNKNOWN
        return HostedState.SHUT_OFF if kept else HostedState.ABSENT

    def refuse_if_stale(self, job: Job) -> None:
        """Fencing on the host: an order from before the VM's last change of owner is void (I3)."""
        if not self.epochs.admits(job.vm_id, job.order.epoch):
            seen = self.epochs.seen(job.vm_id)
            raise Refusal(
                Reason.STALE_EPOCH,
                f"the order is of epoch {job.order.epoch}, {seen} has been seen here",
                evidence={"epoch": str(seen)},
            )

    async def refuse_if_disks_stay(self, job: Job) -> None:
        """What is on this host's own storage goes along with its VM. A vCenter that has just
        started may not have known of it, nor an agent that could not yet list its VMs."""
        here = self.guests.vms.get(job.vm_id) or await self.guests.look(job.vm_id)
        taken = {disk.path for disk in job.order.disks}
        stay = [d for d in here.disks if d.local and d.path not in taken] if here else []
        if stay:
            text = f"{stay[0].path} is on this host's own storage, and the order does not name it"
            raise Refusal(Reason.DISKS_STAY, text)

    async def lay_networks(self, wanted: WantedVm) -> None:
        """The VNIs that the VM needs, as far as they have been told."""
        for vni in sorted(wanted.vm.vnis()):
            network = self.wanted.networks.get(vni)
            if network is not None and not laid(network, self.plane.observed):
                await self.plane.apply(ApplyNetwork(network))

    async def lay_missing_networks(self, wanted: WantedVm) -> None:
        """Only what is not there at all; what has changed is brought up to date by the executor."""
        if not wanted.vm.vnis() <= self.plane.observed.networks.keys():
            await self.lay_networks(wanted)

    async def in_force(self, ports: list[Port]) -> str:
        """The policy's hash: as vouched for by the kernel, else read back now."""
        observed = self.plane.vouched(ports) or (await self.plane.read_back()).ports
        return policy_in_force(ports, observed)


def reporter(means: Means, operation_id: str) -> Callable[[Progress], None]:
    """Who tells the vCenter of a copy's progress, now and then."""
    last = float("-inf")

    def report(progress: Progress) -> None:
        nonlocal last
        now = means.clock.monotonic()
        if now - last >= PROGRESS_EVERY:
            last = now
            means.progress(operation_id, progress)

    return report
