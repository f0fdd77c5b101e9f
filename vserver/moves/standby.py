"""A standby's steps: a copy of the VM's disks, kept in step where it may be started one day."""

from __future__ import annotations

from contextlib import suppress

from common.errors import Reason, Refusal
from common.model.operation import Progress
from common.wake import first_of
from vserver.core.lag import Lag
from vserver.guests import FAILURES
from vserver.hypervisor.port import Copied
from vserver.hypervisor.standby import Mirrored, Standbys
from vserver.moves import cold
from vserver.moves.destination import networks_told, refuse_if_not_enforceable
from vserver.moves.means import Found, Job, Means

LOOK_EVERY, WATCH_EVERY = 0.2, 0.5  # seconds
ATTEMPTS, BETWEEN = 5, 2.0  # to reach a destination whose agent has just said that it is there


# ---- where the copy is ----


async def receive(means: Means, job: Job) -> Found:
    """No port, no network: a standby has nothing to do with either before it is promoted."""
    refuse_if_not_enforceable(means, means.wanted_of(job))
    if await means.guests.look(job.vm_id) is not None:
        raise Refusal(Reason.RUNNING_IN_TWO_PLACES, "the VM is defined here already")
    return Found(port=await _standbys(means).receive(job.vm_id, job.order.disks))


async def promote(means: Means, job: Job) -> Found:
    order = job.order
    await _standbys(means).adopt(job.vm_id, order.definition, order.disks)
    await means.guests.look(job.vm_id)
    await networks_told(means, job)
    return await cold.start(means, job)


async def drop(means: Means, job: Job) -> Found:
    await _standbys(means).drop(job.vm_id)
    return Found()


# ---- where the VM runs ----


async def copy(means: Means, job: Job) -> Found:
    """Until the copy is whole. One that an earlier run of this agent began is begun again."""
    try:
        definition = await _begun(means, job)
        seen = await _in_step(means, job)
    except FAILURES as error:
        with suppress(*FAILURES):
            await _standbys(means).unmirror(job.vm_id)
        if isinstance(error, Refusal) and error.reason is Reason.HYPERVISOR_FAILED:
            raise Refusal(Reason.COPY_FAILED, error.message) from error
        raise
    copied = Copied(seen.total, 0.0, 1, disk_bytes=seen.total)
    return Found(copied=copied, definition=definition)


async def watch(means: Means, job: Job) -> Found:
    """At the source as long as the copy is kept in step: raises when it is not any more. At the
    destination there is nothing to do. A VM that is off writes nothing; but that its copy was in
    step until then somebody must have seen."""
    if not means.wanted_of(job).owned:
        return Found()
    lag, certain = Lag(), False
    while not job.stop.is_set():
        try:
            seen = await _looked(means, job, lag)
        except TimeoutError:
            certain = False
        else:
            if seen is None and not certain:
                text = "it is off, and nobody saw whether its copy was in step until then"
                raise Refusal(Reason.COPY_FAILED, text)
            if seen is not None and not seen.in_step:
                raise Refusal(Reason.COPY_FAILED, "the copy is not in step any more")
            certain = True
        await first_of(job.stop.wait(), means.clock.sleep(WATCH_EVERY))
    return Found()


async def end(means: Means, job: Job) -> Found:
    await _standbys(means).unmirror(job.vm_id)
    return Found()


async def _begun(means: Means, job: Job) -> bytes:
    order = job.order
    for _ in range(ATTEMPTS - 1):
        with suppress(*FAILURES):
            return await _mirror(means, job)
        await first_of(job.stop.wait(), means.clock.sleep(BETWEEN))
        if job.stop.is_set():
            raise Refusal(Reason.CANCELLED_BY_USER, f"operation {order.operation_id} called it off")
    return await _mirror(means, job)


async def _mirror(means: Means, job: Job) -> bytes:
    order = job.order
    return await _standbys(means).mirror(
        job.vm_id, order.peer_migration_uri, order.port, order.disks
    )


async def _in_step(means: Means, job: Job) -> Mirrored:
    lag = Lag()
    while not job.stop.is_set():
        seen = await _looked(means, job, lag)
        if seen is None:
            raise Refusal(Reason.NOT_RUNNING, "its guest has shut down while its disks were copied")
        if seen.in_step:
            return seen
        await first_of(job.stop.wait(), means.clock.sleep(LOOK_EVERY))
    raise Refusal(Reason.CANCELLED_BY_USER, "called off while its disks were copied")


async def _looked(means: Means, job: Job, lag: Lag) -> Mirrored | None:
    """How far it is, and the vCenter is told. What hangs is ended: its guest's writes hang, too."""
    seen = await _standbys(means).mirrored(job.vm_id)
    if seen is None:
        return None
    if lag.hangs(seen.done, seen.missing, means.clock.monotonic()):
        await _standbys(means).unmirror(job.vm_id)
        raise Refusal(Reason.COPY_FAILED, "the destination takes nothing any more")
    of_disks = seen.total, seen.done
    told = Progress(seen.total, seen.done, seen.missing, 0.0, 1, *of_disks)
    means.progress(job.order.operation_id, told)
    return seen


def _standbys(means: Means) -> Standbys:
    found = means.hypervisor.standbys
    if found is None:
        raise Refusal(Reason.INCOMPATIBLE_HOST, "this host cannot keep standbys")
    return found
