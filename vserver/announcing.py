"""Registers the VMs that are here and deregisters those that are gone (draft 5.1, 5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common import log
from common.clock import Clock
from common.codec.enums import VM_STATE
from common.codec.vm import to_vm
from common.errors import Refusal
from common.model.operation import HostedState
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.wake import Wake
from vserver.budget import Budget
from vserver.core.announce import Announcer, Deregister, Message, Register
from vserver.core.epochs import Epochs
from vserver.core.wanted import Wanted
from vserver.guests import FAILURES, Guests
from vserver.link import Link, LinkLost

AT_A_TIME = 16

_log = log.get(__name__)


class Announcing:
    def __init__(
        self,
        server_id: str,
        announcer: Announcer,
        wanted: Wanted,
        guests: Guests,
        epochs: Epochs,
        link: Callable[[], Link | None],
        clock: Clock,
        budget: Budget,
    ) -> None:
        self._server_id = server_id
        self._announcer = announcer
        self._wanted = wanted
        self._guests = guests
        self._epochs = epochs
        self._link = link
        self._clock = clock
        self._budget = budget
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self.wake = Wake(clock)

    async def run(self) -> None:
        """One task a message, at most one message a VM at a time."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                link, now = self._link(), self._clock.monotonic()
                if link is not None and self._guests.listed:
                    for message in self._announcer.due(self._wanted, self._guests.vms, now):
                        self._announcer.sending(message)
                        tasks.create_task(self._say(link, message))
                await self.wake.heard(self._announcer.next_due(now))

    def problem(self, vm_id: str) -> str:
        """Why the VM's registration was refused; "" if it was not."""
        return self._announcer.problem(vm_id)

    async def _say(self, link: Link, message: Message) -> None:
        try:
            async with self._turn:
                await self._budget.wait()
                if isinstance(message, Register):
                    await self._register(link, message)
                else:
                    await self._deregister(link, message)
            self._budget.answered()
        except Refusal as refusal:
            _log.warning(
                "refused",
                message=type(message).__name__,
                vm_id=message.vm_id,
                reason=refusal.reason.name,
                error=refusal.message,
                evidence=refusal.evidence,
            )
            self._budget.refused(refusal)
            now = self._clock.monotonic()
            self._announcer.refused(message, refusal, now)
        except (LinkLost, TimeoutError) as error:
            _log.warning("not answered", vm_id=message.vm_id, error=str(error))
            self._budget.unanswered()
            self._announcer.unanswered(message, self._clock.monotonic())
        self.wake.ring()

    async def _register(self, link: Link, message: Register) -> None:
        request = pb.RegisterRequest(
            vm=to_vm(message.vm), state=VM_STATE.to(message.state), epoch=message.epoch
        )
        reply = await link.register(request)
        location = reply.record.location
        if location.server_id == self._server_id:
            self._epochs.hold(message.vm_id, location.epoch)
        self._announcer.accepted(message, self._clock.monotonic())
        _log.info(
            "registered",
            vm_id=message.vm_id,
            state=message.state.value,
            outcome=pb.RegisterOutcome.Name(reply.outcome),
            epoch=location.epoch,
            came_from=reply.came_from.server_id or None,
        )

    async def _deregister(self, link: Link, message: Deregister) -> None:
        if await self._is_here_after_all(message.vm_id):
            self._announcer.abandoned(message)
            return
        await link.deregister(pb.DeregisterRequest(vm_id=message.vm_id, epoch=message.epoch))
        self._announcer.accepted(message, self._clock.monotonic())
        _log.info("deregistered", vm_id=message.vm_id, epoch=message.epoch)

    async def _is_here_after_all(self, vm_id: str) -> bool:
        """The ledger forgets the VM on this: the hypervisor itself must say that it is gone."""
        try:
            if await self._guests.look(vm_id) is not None:
                return True
        except FAILURES:
            return True
        return await self._guests.truth(vm_id) is not HostedState.ABSENT
