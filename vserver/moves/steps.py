"""One attempt at an order. Every step may be done twice, and says what it found.

An attempt returns an outcome in any case: what a step could not do is a fact that the vCenter
decides on, together with the hypervisor's word on where the VM is (`truth`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeAlias

from common import log
from common.errors import Reason, Refusal
from common.model.operation import Failure, MoveKind, MoveOutcome, MoveStep
from common.model.vm import VmState
from common.model.wanted import MoveOrder
from vserver.core.diff import RemovePort
from vserver.guests import FAILURES
from vserver.moves import cold, destination, source, standby
from vserver.moves.means import RUNS, Found, Job, Means, together

_log = log.get(__name__)


async def carry_out(means: Means, job: Job) -> MoveOutcome:
    order = job.order
    found, failure = Found(), None
    try:
        means.refuse_if_stale(job)
        found = await _step_of(order)(means, job)
    except FAILURES as error:
        failure = _failure(error)
        _log.warning("a step failed", reason=failure.reason, error=failure.message)
    return MoveOutcome(
        operation_id=order.operation_id,
        vm_id=job.vm_id,
        epoch=order.epoch,
        step=order.step,
        ok=failure is None,
        truth=await means.truth(job),
        failure=failure,
        policy_hash=found.policy_hash,
        gated=found.gated,
        port=found.port,
        definition=found.definition,
        **asdict(found.copied),
    )


async def clean(means: Means, job: Job) -> Found:
    """Forget the VM, on either side. One that runs is not forgotten, whoever says so."""
    here = await means.guests.look(job.vm_id)
    if here is not None and here.state is VmState.RUNNING:  # no leftover of a move ever does
        raise Refusal(Reason.RUNNING_IN_TWO_PLACES, "the VM runs here")
    if here is not None and here.state in RUNS:
        raise Refusal(Reason.HYPERVISOR_FAILED, f"the VM is {here.state.value} here")
    await together(_discard(means, job), _remove_ports(means, job))
    return Found()


async def _discard(means: Means, job: Job) -> None:
    await means.hypervisor.discard(job.vm_id)
    if job.order.disks:
        await means.hypervisor.drop_disks(job.vm_id, job.order.disks)
    await means.guests.look(job.vm_id)


async def _remove_ports(means: Means, job: Job) -> None:
    for device in _devices_left(means, job):
        await means.plane.apply(RemovePort(device))


def _devices_left(means: Means, job: Job) -> list[str]:
    macs = {interface.mac for interface in means.wanted_of(job).vm.interfaces}
    ports = means.plane.observed.ports
    return [device for device, there in ports.items() if there.port.mac in macs]


Step: TypeAlias = Callable[[Means, Job], Awaitable[Found]]
_STEPS: dict[MoveStep, Step] = {
    MoveStep.PREPARE: destination.prepare,
    MoveStep.COPY: source.copy,
    MoveStep.START: destination.start,
    MoveStep.CLEAN: clean,
    MoveStep.ABORT: source.abort,
}
_STEPS_WHILE_OFF: dict[MoveStep, Step] = {
    MoveStep.COPY: cold.copy,
    MoveStep.START: cold.start,
    MoveStep.ABORT: cold.abort,
}


_STEPS_OF_A_STANDBY: dict[MoveStep, Step] = {
    MoveStep.PREPARE: standby.receive,
    MoveStep.COPY: standby.copy,
    MoveStep.MIRROR: standby.watch,
    MoveStep.START: standby.promote,
    MoveStep.CLEAN: standby.drop,
    MoveStep.ABORT: standby.end,
}


def _step_of(order: MoveOrder) -> Step:
    if order.kind is MoveKind.STANDBY:
        return _STEPS_OF_A_STANDBY[order.step]
    special = _STEPS_WHILE_OFF.get(order.step) if order.kind.off else None
    return special or _STEPS[order.step]


def _failure(error: Exception) -> Failure:
    if isinstance(error, Refusal):
        return Failure(error.reason.name, error.message)
    text = str(error) or "it did not answer in time"
    return Failure(Reason.HYPERVISOR_FAILED.name, text)
