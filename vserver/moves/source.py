"""A move's steps where the VM comes from."""

from __future__ import annotations

from contextlib import suppress

from common.errors import Reason, Refusal
from common.model.operation import HostedState
from common.model.wanted import MoveOrder
from vserver.core.ports import ports_of
from vserver.core.readback import policy_in_force
from vserver.core.taps import incoming_device
from vserver.guests import FAILURES
from vserver.hypervisor.port import Copied, CopyTerms
from vserver.moves.means import Found, Job, Means, reporter

_LEFT = (HostedState.ABSENT, HostedState.HELD)


async def copy(means: Means, job: Job) -> Found:
    """A copy that an earlier run of this agent left under way is stopped and begun again."""
    if await _has_left(means, job):
        return Found()
    await means.refuse_if_disks_stay(job)
    await means.hypervisor.abort(job.vm_id)
    wanted = means.wanted_of(job)
    ports = ports_of(wanted, means.guests.vms.get(job.vm_id))
    policy = policy_in_force(ports, means.plane.observed.ports)
    if job.stop.is_set():
        raise Refusal(Reason.CANCELLED_BY_USER, "called off before the copy began")
    try:
        copied = await means.hypervisor.migrate(
            job.vm_id,
            job.order.peer_migration_uri,
            {i.mac: incoming_device(i.mac) for i in wanted.vm.interfaces},
            reporter(means, job.order.operation_id),
            _terms(job.order),
        )
    except Refusal as error:
        if error.reason is Reason.DOWNTIME_NOT_KEPT:
            raise
        raise Refusal(Reason.COPY_FAILED, error.message) from error
    except TimeoutError:  # unknown, not failed
        if not await _has_left(means, job):
            raise
        copied = Copied(0, 0.0, 0)
    with suppress(*FAILURES):  # its taps are gone, so that clearing up after it is not urgent
        await means.guests.look(job.vm_id)
    return Found(policy, copied)


async def abort(means: Means, job: Job) -> Found:
    """The copy that we began ourselves has ended by now (see `orders`). Where it is not certain
    that none is under way, this raises: then nobody knows yet where the VM will be."""
    await means.hypervisor.abort(job.vm_id)
    if await means.truth(job) in _LEFT:
        raise Refusal(Reason.TOO_LATE_TO_CANCEL, "the VM has left")
    return Found()


async def _has_left(means: Means, job: Job) -> bool:
    """Raises if it is off, but not by leaving."""
    truth = await means.truth(job)
    if truth is HostedState.SHUT_OFF:
        raise Refusal(Reason.NOT_RUNNING, "its guest has shut down, in the middle of its move")
    return truth in _LEFT


def _terms(order: MoveOrder) -> CopyTerms:
    return CopyTerms(order.kind, order.gated, order.disks, order.budget)
