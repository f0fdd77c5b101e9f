"""A move's steps where the VM goes to."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from common import log
from common.errors import Reason, Refusal
from common.model.operation import MoveKind
from common.model.vm import VmState
from common.model.wanted import WantedVm
from vserver.core.diff import ApplyPort
from vserver.core.ports import has_taps, incoming_ports, ports_of
from vserver.guests import FAILURES
from vserver.moves.means import RUNS, Found, Job, Means, together
from vserver.network.port import Port

NETWORKS_WITHIN = 5.0  # seconds: a VM and its networks come down one after the other

_log = log.get(__name__)


async def prepare(means: Means, job: Job) -> Found:
    """Policy before packets: closed ports, under the names that the taps will have. Hypervisor and
    network have nothing to say to each other here, and are made ready at once."""
    wanted = means.wanted_of(job)
    refuse_if_not_enforceable(means, wanted)
    ports = incoming_ports(wanted, is_open=False)
    if not ports:
        raise Refusal(Reason.UNASSIGNED, "no interface has a VNI")
    await together(_make_way(means, job), _close(means, job, ports))
    in_force = await means.in_force(ports)
    if in_force != wanted.profile_hash:
        raise Refusal(
            Reason.NOT_ENFORCEABLE,
            f"read back {in_force or 'nothing'} instead of {wanted.profile_hash}",
        )
    if job.order.kind.hands_over:
        return Found(in_force, port=await _take(means, job))
    live = job.order.kind is MoveKind.LIVE
    return Found(in_force, gated=live and await means.hypervisor.hold(job.vm_id))


async def _take(means: Means, job: Job) -> int:
    """Where the VM's disks are written to; 0: it has none that go along."""
    order = job.order
    return await means.hypervisor.take(job.vm_id, order.disks) if order.disks else 0


async def _make_way(means: Means, job: Job) -> None:
    """A standby that ended while this host was away would write to the same disks, and take them
    along when it is swept up later."""
    order = job.order
    if means.hypervisor.standbys is not None:
        await means.hypervisor.standbys.drop(job.vm_id)
    if not (order.kind.hands_over and order.disks):
        await means.hypervisor.make_way(job.vm_id, order.disks)
    here = await means.guests.look(job.vm_id)
    if here is not None and here.state in RUNS:
        raise Refusal(Reason.RUNNING_IN_TWO_PLACES, "the VM runs here already")


async def _close(means: Means, job: Job, ports: list[Port]) -> None:
    await networks_told(means, job)
    await means.lay_networks(means.wanted_of(job))
    await _apply(means, ports)


async def start(means: Means, job: Job) -> Found:
    """Ports open while the VM starts: until then they pass nothing, and what they pass then is
    the policy that was prepared. Nothing else is done before the VM runs: it stands still."""
    wanted = means.wanted_of(job)
    here = means.guests.vms.get(job.vm_id)
    if not has_taps(here):
        here = await means.guests.look(job.vm_id)
    if here is None or here.state is VmState.SHUT_OFF:
        raise Refusal(Reason.HYPERVISOR_FAILED, "the VM's copy is not here")
    await means.lay_missing_networks(wanted)
    ports = ports_of(wanted, here)
    await together(_resume(means, job), _apply(means, ports))
    found = Found(await means.in_force(ports))
    with suppress(*FAILURES):  # it runs: a hypervisor that does not say so now is read on the beat
        await means.guests.look(job.vm_id)
    return found


async def _apply(means: Means, ports: list[Port]) -> None:
    for port in ports:
        await means.plane.apply(ApplyPort(port))


async def _resume(means: Means, job: Job) -> None:
    """Where that is in doubt: `hosted()` does not tell a VM that runs from one that waits, its
    state does."""
    try:
        await means.hypervisor.resume(job.vm_id)
        return
    except TimeoutError:
        _log.warning("resuming was not answered: looking whether it runs")
    here = await means.guests.look(job.vm_id)
    if here is None or here.state is not VmState.RUNNING:
        state = here.state.value if here is not None else "absent"
        raise Refusal(Reason.HYPERVISOR_FAILED, f"the VM was resumed and is {state}")


def refuse_if_not_enforceable(means: Means, wanted: WantedVm) -> None:
    missing = wanted.profile.needs() - means.plane.capabilities
    if missing:
        raise Refusal(Reason.NOT_ENFORCEABLE, f"not here: {', '.join(sorted(missing))}")
    if wanted.profile.digest() != wanted.profile_hash:
        text = "the profile has fields that this agent does not know: upgrade it"
        raise Refusal(Reason.NOT_ENFORCEABLE, text)


async def networks_told(means: Means, job: Job) -> None:
    try:
        async with asyncio.timeout(NETWORKS_WITHIN):
            while means.wanted.missing_networks(means.wanted_of(job)):
                await means.news()
    except TimeoutError:
        missing = sorted(means.wanted.missing_networks(means.wanted_of(job)))
        raise Refusal(Reason.NETWORK_FAILED, f"not told of VNI {missing}") from None
