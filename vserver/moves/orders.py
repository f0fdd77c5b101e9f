"""Which step of which move is under way for each VM: one task each, owned here.

An order stands until the wanted state shows another or none. Its outcome is kept as long as it
stands, and told again, now and then and on a new stream. A step that only leads forward (start,
clean, abort) is tried again until it is done, for there is no way back from where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from common import log
from common.errors import Reason
from common.model.operation import Failure, HostedState, MoveKind, MoveOutcome, MoveStep
from common.model.wanted import MoveOrder
from common.wake import first_of
from vserver.guests import FAILURES
from vserver.moves.leftovers import Leftovers
from vserver.moves.means import Job, Means
from vserver.moves.steps import carry_out

FIRST_PAUSE = 0.5
LAST_PAUSE = 10.0
ABORT_EVERY = 0.5
SAY_AGAIN = 2.0

_FORWARD = {MoveStep.START, MoveStep.CLEAN, MoveStep.ABORT}
_log = log.get(__name__)


@dataclass(slots=True)
class _Running:
    job: Job
    task: asyncio.Task[None]

    def answers(self, order: MoveOrder) -> bool:
        mine = self.job.order
        return (mine.operation_id, mine.step) == (order.operation_id, order.step)


class Moves:
    def __init__(self, means: Means, say: Callable[[MoveOutcome], None]) -> None:
        self._means = means
        self._say = say
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[str, _Running] = {}
        self._leftovers = Leftovers(means, self._running)
        self._outcomes: dict[str, MoveOutcome] = {}

    async def run(self) -> None:
        """Own the tasks, for ever; cancelling it cancels them.

        What came of a standing order is said again and again, with what the hypervisor says now:
        the vCenter may have heard it when it could write nothing down, and a guest may stand still
        until it does; or the hypervisor did not answer, or the VM was touched by hand since.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                self.consider_all()
                while True:
                    await self._means.clock.sleep(SAY_AGAIN)
                    await self._say_again()
                    await self._leftovers.sweep()
            finally:
                self._tasks = None  # what is heard from now on begins nothing any more

    def consider_all(self) -> None:
        for vm_id in dict.fromkeys([*self._means.wanted.vms, *self._running]):
            self.consider(vm_id)

    def consider(self, vm_id: str) -> None:
        """The wanted state of this VM may have changed: begin, go over, or call off."""
        wanted = self._means.wanted
        if self._tasks is None or not wanted.complete:
            return
        known = wanted.vms.get(vm_id)
        order = known.move if known is not None else None
        before = self._running.get(vm_id)
        if order is None and before is None:
            return
        if order is not None and before is not None and before.answers(order):
            return
        self._outcomes.pop(vm_id, None)
        if before is not None:
            before.job.stop.set()
        if order is None:
            self._running.pop(vm_id)
            self._tasks.create_task(self._call_off(before))
            return
        job = Job(vm_id, order)
        task = self._tasks.create_task(self._carry_out(job, before))
        self._running[vm_id] = _Running(job, task)

    def repeat(self) -> None:
        """Say again what came of the orders that stand."""
        for outcome in self._outcomes.values():
            self._say(outcome)

    async def _say_again(self) -> None:
        """While hypervisors answer, orders may be called off and others begin."""
        for vm_id, outcome in list(self._outcomes.items()):
            if self._outcomes.get(vm_id) is not outcome:
                continue
            job = self._running[vm_id].job
            truth = await self._means.truth(job)
            if self._outcomes.get(vm_id) is not outcome:
                continue
            self._outcomes[vm_id] = _now(job.order, outcome, truth)
            self._say(self._outcomes[vm_id])

    async def _carry_out(self, job: Job, before: _Running | None) -> None:
        order = job.order
        with log.bound(operation_id=order.operation_id, vm_id=job.vm_id, step=order.step.value):
            await self._call_off(before)
            await self._leftovers.ended(job.vm_id)
            _log.info("a step begins", epoch=order.epoch, peer=order.peer_server)
            pause = FIRST_PAUSE
            while not job.stop.is_set():
                outcome = await carry_out(self._means, job)
                if job.stop.is_set():
                    return
                _log.info("a step has ended", ok=outcome.ok, truth=outcome.truth.value)
                self._outcomes[job.vm_id] = outcome
                self._say(outcome)
                if outcome.ok and order.step is MoveStep.CLEAN and self._tasks is not None:
                    self._tasks.create_task(self._add_figures(outcome))
                if outcome.ok or order.step not in _FORWARD or _is_final(outcome):
                    return
                await first_of(job.stop.wait(), self._means.clock.sleep(pause))
                pause = min(pause * 2, LAST_PAUSE)

    async def _add_figures(self, cleaned: MoveOutcome) -> None:
        """The order does not stand for them, nor does the VM's next one wait. If it still stands,
        they are repeated with it."""
        try:
            last = await self._means.hypervisor.last_figures(cleaned.vm_id)
        except FAILURES as error:
            _log.warning("a copy's figures are not known", error=str(error))
            return
        if last is None:
            return
        told = replace(cleaned, **asdict(last))
        standing = self._outcomes.get(cleaned.vm_id)
        if standing is not None and standing.operation_id == cleaned.operation_id:
            self._outcomes[cleaned.vm_id] = told
        self._say(told)

    async def _call_off(self, before: _Running | None) -> None:
        """Wait for the step's end. A copy is stopped, again and again: it may just be beginning."""
        if before is None:
            return
        copying = before.job.order.step is MoveStep.COPY
        while not before.task.done():
            if not copying:
                await asyncio.wait({before.task})
                continue
            try:
                await self._means.hypervisor.abort(before.job.vm_id)
            except FAILURES as error:
                _log.warning("cannot stop the copy", error=str(error))
            await first_of(asyncio.wait({before.task}), self._means.clock.sleep(ABORT_EVERY))


def _is_final(outcome: MoveOutcome) -> bool:
    """A VM that would not start is off, and stays so until somebody starts it."""
    failure = outcome.failure
    return failure is not None and failure.reason == Reason.WOULD_NOT_START.name


_BACK = (HostedState.RUNNING, HostedState.SHUT_OFF)


def _now(order: MoveOrder, outcome: MoveOutcome, truth: HostedState) -> MoveOutcome:
    """The same answer later. A silent hypervisor says nothing new; a VM that is where it had been
    copied away from was brought back by hand, or was held there and has ended. A standby's never
    leaves."""
    if truth is HostedState.UNKNOWN:
        return outcome
    left = outcome.step is MoveStep.COPY and order.kind is not MoveKind.STANDBY
    if left and outcome.ok and truth in _BACK:
        failure = Failure(Reason.HYPERVISOR_FAILED.name, f"the VM is here again: {truth.value}")
        return replace(outcome, ok=False, failure=failure, truth=truth)
    return replace(outcome, truth=truth)
