"""What a host does for each step of a move. Every step may be done twice, and says what it found.

They return an outcome in any case: what a step could not do is a fact that the vCenter decides on,
together with the hypervisor's word on where the VM is (`truth`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from common import log
from common.clock import Clock
from common.errors import Reason, Refusal
from common.model.operation import Failure, HostedState, MoveOutcome, MoveStep, Progress
from common.model.vm import VmState
from common.model.wanted import MoveOrder, WantedVm
from vserver.core.diff import ApplyNetwork, ApplyPort, RemovePort, laid
from vserver.core.epochs import Epochs
from vserver.core.ports import has_taps, incoming_ports, ports_of
from vserver.core.readback import policy_in_force
from vserver.core.taps import incoming_device
from vserver.core.wanted import Wanted
from vserver.dataplane import DataPlane
from vserver.guests import FAILURES, Guests
from vserver.hypervisor.port import Copied, Hypervisor
from vserver.network.port import Port

NETWORKS_WITHIN = 5.0  # seconds: a VM and its networks come down one after the other
PROGRESS_EVERY = 0.2

_log = log.get(__name__)
_RUNS = {VmState.RUNNING, VmState.PAUSED}


@dataclass(frozen=True, slots=True)
class Found:
    """What a step that went well has to say, besides the truth."""

    policy_hash: str = ""
    copied: Copied = Copied(0, 0.0, 0)


@dataclass(slots=True)
class Job:
    """One order being carried out. `stop`: something else is wanted of the VM now."""

    vm_id: str
    order: MoveOrder
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Steps:
    """The parts of the agent that a move needs. `news` waits for the next wanted change."""

    wanted: Wanted
    epochs: Epochs
    guests: Guests
    plane: DataPlane
    hypervisor: Hypervisor
    clock: Clock
    news: Callable[[], Awaitable[None]]
    progress: Callable[[str, Progress], None]

    async def carry_out(self, job: Job) -> MoveOutcome:
        """One attempt at the order."""
        step = _STEPS[job.order.step]
        found, failure = Found(), None
        try:
            self._refuse_if_stale(job)
            found = await step(self, job)
        except FAILURES as error:
            failure = _failure(error)
            _log.warning("a step failed", reason=failure.reason, error=failure.message)
        truth = await self.guests.truth(job.vm_id)
        return MoveOutcome(
            operation_id=job.order.operation_id,
            vm_id=job.vm_id,
            epoch=job.order.epoch,
            step=job.order.step,
            ok=failure is None,
            truth=truth,
            failure=failure,
            policy_hash=found.policy_hash,
            downtime_ms=found.copied.downtime_ms,
            bytes=found.copied.bytes,
            iterations=found.copied.iterations,
        )

    # ---- the destination ----

    async def prepare(self, job: Job) -> Found:
        """Policy before packets: closed ports, under the names that the taps will have."""
        wanted = self._wanted(job)
        here = await self.guests.look(job.vm_id)
        if here is not None and here.state in _RUNS:
            raise Refusal(Reason.RUNNING_IN_TWO_PLACES, "the VM runs here already")
        self._refuse_if_not_enforceable(wanted)
        await self._networks_told(job)
        await self._lay_networks(wanted)
        ports = incoming_ports(wanted, is_open=False)
        if not ports:
            raise Refusal(Reason.UNASSIGNED, "no interface has a VNI")
        for port in ports:
            await self.plane.apply(ApplyPort(port))
        in_force = await self._in_force(ports)
        if in_force != wanted.profile_hash:
            raise Refusal(
                Reason.NOT_ENFORCEABLE,
                f"read back {in_force or 'nothing'} instead of {wanted.profile_hash}",
            )
        return Found(in_force)

    async def start(self, job: Job) -> Found:
        """Ports open first, so that the VM's first frame passes; reading back costs no blackout."""
        wanted = self._wanted(job)
        here = self.guests.vms.get(job.vm_id)
        if not has_taps(here):
            here = await self.guests.look(job.vm_id)
        if here is None or here.state is VmState.SHUT_OFF:
            raise Refusal(Reason.HYPERVISOR_FAILED, "the VM's copy is not here")
        await self._lay_networks(wanted)
        ports = ports_of(wanted, here)
        for port in ports:
            await self.plane.apply(ApplyPort(port))
        await self._resume(job)
        return Found(await self._in_force(ports))

    async def _resume(self, job: Job) -> None:
        """`hosted()` does not tell a VM that runs from one that waits; its state does."""
        try:
            await self.hypervisor.resume(job.vm_id)
        except TimeoutError:
            _log.warning("resuming was not answered: looking whether it runs")
        here = await self.guests.look(job.vm_id)
        if here is None or here.state is not VmState.RUNNING:
            state = here.state.value if here is not None else "absent"
            raise Refusal(Reason.HYPERVISOR_FAILED, f"the VM was resumed and is {state}")

    # ---- the source ----

    async def copy(self, job: Job) -> Found:
        """A copy that an earlier run of this agent left under way is stopped and begun again."""
        if await self.guests.truth(job.vm_id) is HostedState.ABSENT:
            return Found()
        await self.hypervisor.abort(job.vm_id)
        wanted = self._wanted(job)
        macs = [interface.mac for interface in wanted.vm.interfaces]
        before = await self._in_force(ports_of(wanted, self.guests.vms.get(job.vm_id)))
        if job.stop.is_set():
            raise Refusal(Reason.CANCELLED_BY_USER, "called off before the copy began")
        try:
            copied = await self.hypervisor.migrate(
                job.vm_id,
                job.order.peer_migration_uri,
                {mac: incoming_device(mac) for mac in macs},
                self._reporter(job.order.operation_id),
            )
        except TimeoutError:
            if await self.guests.truth(job.vm_id) is not HostedState.ABSENT:
                raise
            copied = Copied(0, 0.0, 0)
        return Found(before, copied)

    async def abort(self, job: Job) -> Found:
        """Our own copy has ended by now (see `moves`)."""
        await self.hypervisor.abort(job.vm_id)
        if await self.guests.truth(job.vm_id) is HostedState.ABSENT:
            raise Refusal(Reason.TOO_LATE_TO_CANCEL, "the VM has left")
        return Found()

    async def clean(self, job: Job) -> Found:
        """Forget the VM. One that runs is not forgotten, whoever says so."""
        here = await self.guests.look(job.vm_id)
        if here is not None and here.state in _RUNS:
            raise Refusal(Reason.HYPERVISOR_FAILED, f"the VM is {here.state.value} here")
        await self.hypervisor.discard(job.vm_id)
        await self.guests.look(job.vm_id)
        for device in self._devices_left(job):
            await self.plane.apply(RemovePort(device))
        return Found()

    # ---- parts of steps ----

    def _wanted(self, job: Job) -> WantedVm:
        wanted = self.wanted.vms.get(job.vm_id)
        if wanted is None:
            raise Refusal(Reason.CANCELLED_BY_USER, "the order was taken back")
        return wanted

    def _refuse_if_stale(self, job: Job) -> None:
        if not self.epochs.admits(job.vm_id, job.order.epoch):
            seen = self.epochs.seen(job.vm_id)
            raise Refusal(
                Reason.STALE_EPOCH,
                f"the order is of epoch {job.order.epoch}, {seen} has been seen here",
                evidence={"epoch": str(seen)},
            )

    def _refuse_if_not_enforceable(self, wanted: WantedVm) -> None:
        missing = wanted.profile.needs() - self.plane.capabilities
        if missing:
            raise Refusal(Reason.NOT_ENFORCEABLE, f"not here: {', '.join(sorted(missing))}")
        if wanted.profile.digest() != wanted.profile_hash:
            text = "the profile has fields that this agent does not know: upgrade it"
            raise Refusal(Reason.NOT_ENFORCEABLE, text)

    async def _networks_told(self, job: Job) -> None:
        try:
            async with asyncio.timeout(NETWORKS_WITHIN):
                while self.wanted.missing_networks(self._wanted(job)):
                    await self.news()
        except TimeoutError:
            missing = sorted(self.wanted.missing_networks(self._wanted(job)))
            raise Refusal(Reason.NETWORK_FAILED, f"not told of VNI {missing}") from None

    async def _lay_networks(self, wanted: WantedVm) -> None:
        for vni in sorted(wanted.vm.vnis()):
            network = self.wanted.networks.get(vni)
            if network is not None and not laid(network, self.plane.observed):
                await self.plane.apply(ApplyNetwork(network))

    async def _in_force(self, ports: list[Port]) -> str:
        return policy_in_force(ports, (await self.plane.read_back()).ports)

    def _devices_left(self, job: Job) -> list[str]:
        wanted = self.wanted.vms.get(job.vm_id)
        macs = {i.mac for i in wanted.vm.interfaces} if wanted is not None else set()
        ports = self.plane.observed.ports
        return [device for device, there in ports.items() if there.port.mac in macs]

    def _reporter(self, operation_id: str) -> Callable[[Progress], None]:
        last = float("-inf")

        def report(progress: Progress) -> None:
            nonlocal last
            now = self.clock.monotonic()
            if now - last >= PROGRESS_EVERY:
                last = now
                self.progress(operation_id, progress)

        return report


_STEPS: dict[MoveStep, Callable[[Steps, Job], Awaitable[Found]]] = {
    MoveStep.PREPARE: Steps.prepare,
    MoveStep.COPY: Steps.copy,
    MoveStep.START: Steps.start,
    MoveStep.CLEAN: Steps.clean,
    MoveStep.ABORT: Steps.abort,
}


def _failure(error: Exception) -> Failure:
    if isinstance(error, Refusal):
        return Failure(error.reason.name, error.message)
    text = str(error) or "it did not answer in time"
    return Failure(Reason.HYPERVISOR_FAILED.name, text)
