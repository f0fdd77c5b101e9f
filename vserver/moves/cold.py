"""A move's steps for a VM that is off while it moves (COLD), or is turned off for it (RESTART).

The VM is on the host that has its definition; its disks go before that, to be there when it comes,
and stay at the source until the move has ended well. The source's is gone before the ledger changes
owners, and nobody starts it at the destination before that; going back, the source's counts.
"""

from __future__ import annotations

from common.errors import Reason, Refusal
from common.model.operation import HostedState, MoveKind
from common.wake import first_of
from vserver.core.diff import ApplyPort
from vserver.core.ports import ports_of
from vserver.core.readback import policy_in_force
from vserver.hypervisor.port import Copied, Luggage
from vserver.moves.means import Found, Job, Means, reporter

SHUTS_DOWN_WITHIN = 60.0  # seconds from the first press of its power button
_PRESS_EVERY, _LOOK_EVERY = 10.0, 0.2


async def copy(means: Means, job: Job) -> Found:
    """At the source. Done again it goes on from what it finds."""
    if await means.truth(job) is HostedState.ABSENT:
        return Found()
    await means.refuse_if_disks_stay(job)
    ports = ports_of(means.wanted_of(job), means.guests.vms.get(job.vm_id))
    policy = policy_in_force(ports, means.plane.observed.ports)
    if job.order.kind is MoveKind.RESTART:
        await _shut_down(means, job)
    truth = await means.truth(job)
    if truth is HostedState.UNKNOWN:
        raise TimeoutError("the hypervisor does not say where the VM is")
    if truth is HostedState.RUNNING:
        raise Refusal(Reason.NOT_SHUT_OFF, "the VM runs here")
    if job.stop.is_set():
        raise Refusal(Reason.CANCELLED_BY_USER, "called off before the copy began")
    if truth is HostedState.SHUT_OFF:
        await _hand_over(means, job)
    await means.guests.look(job.vm_id)
    size = sum(disk.used for disk in job.order.disks)
    return Found(policy, Copied(size, 0.0, 1 if size else 0, disk_bytes=size))


async def abort(means: Means, job: Job) -> Found:
    """At the source. What was shut down for the move runs again."""
    await means.hypervisor.abort(job.vm_id)
    truth = await means.truth(job)
    if truth is HostedState.ABSENT:
        raise Refusal(Reason.TOO_LATE_TO_CANCEL, "the VM has left")
    if job.order.kind is MoveKind.RESTART and truth is HostedState.SHUT_OFF:
        await _power_on(means, job)
    return Found()


async def start(means: Means, job: Job) -> Found:
    """At the destination. Its taps are closed from the moment they exist until their ports are
    opened here."""
    wanted = means.wanted_of(job)
    await means.hypervisor.give_up(job.vm_id)  # it may be kept for a live move that is over
    if not await means.hypervisor.keeps(job.vm_id):
        raise Refusal(Reason.HYPERVISOR_FAILED, "the VM's definition is not here")
    await means.hypervisor.settle(job.vm_id)
    if job.order.kind is MoveKind.COLD:
        await means.guests.look(job.vm_id)
        return Found()
    await means.lay_networks(wanted)
    await _power_on(means, job)
    ports = ports_of(wanted, means.guests.vms.get(job.vm_id))
    for port in ports:
        await means.plane.apply(ApplyPort(port))
    return Found(await means.in_force(ports))


async def _shut_down(means: Means, job: Job) -> None:
    """By the guest itself. Raises if it does not heed its button, or the move is called off."""
    clock = means.clock
    ends = clock.monotonic() + SHUTS_DOWN_WITHIN
    again = 0.0
    while await means.guests.truth(job.vm_id) is not HostedState.ABSENT:
        now = clock.monotonic()
        if job.stop.is_set():
            raise Refusal(Reason.CANCELLED_BY_USER, "called off while the guest shut down")
        if now >= ends:
            text = f"the guest did not shut down within {SHUTS_DOWN_WITHIN:g} s"
            raise Refusal(Reason.WOULD_NOT_STOP, text)
        if now >= again:
            await means.hypervisor.ask_off(job.vm_id)
            again = now + _PRESS_EVERY
        await first_of(job.stop.wait(), clock.sleep(_LOOK_EVERY))


async def _power_on(means: Means, job: Job) -> None:
    try:
        await means.hypervisor.power_on(job.vm_id)
    except Refusal as error:
        raise Refusal(Reason.WOULD_NOT_START, error.message) from error
    await means.guests.look(job.vm_id)


async def _hand_over(means: Means, job: Job) -> None:
    order = job.order
    luggage = Luggage(order.disks, order.port, reporter(means, order.operation_id))
    try:
        await means.hypervisor.hand_over(job.vm_id, order.peer_migration_uri, luggage)
    except Refusal as error:
        raise Refusal(Reason.COPY_FAILED, error.message) from error
    except TimeoutError:  # unknown, not failed
        if await means.truth(job) is not HostedState.ABSENT:
            raise
