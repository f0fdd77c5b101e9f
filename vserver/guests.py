"""The VMs that are here, as the hypervisor said last: what decisions are made from.

Whoever is about to do something that cannot be undone asks the hypervisor itself (`truth`).
"""

from __future__ import annotations

from collections.abc import Callable

from common import log
from common.errors import Refusal
from common.model.operation import HostedState
from vserver.freshness import Freshness
from vserver.hypervisor.port import HostedVm, Hypervisor

FAILURES = (Refusal, TimeoutError, OSError)  # what a port may raise; anything else is a defect

_log = log.get(__name__)


class Guests:
    """`changed`: VMs are not as they were. `missed`: the hypervisor was away, and anything may
    have happened on the host meanwhile. `looked_after`: a move is bringing this VM, and looks by
    itself; reading it in the middle of the switch would only hold the hypervisor up."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        changed: Callable[[], None],
        missed: Callable[[], None],
        looked_after: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._hypervisor = hypervisor
        self._changed = changed
        self._missed = missed
        self._looked_after = looked_after
        self._fresh: Freshness[str] = Freshness()
        self.vms: dict[str, HostedVm] = {}
        self.listed = False  # a whole list has been read: before, absence means nothing

    async def refresh(self) -> None:
        """Read everything again; if that fails, what is known stands."""
        ticket = self._fresh.begin()
        try:
            found = {vm.vm.vm_id: vm for vm in await self._hypervisor.list()}
        except FAILURES as error:
            _log.warning("cannot list the VMs", error=str(error))
            return
        before, first = dict(self.vms), not self.listed
        self._fresh.merge(self.vms, found, ticket)
        self.listed = True
        if first or before != self.vms:
            self._changed()

    async def look(self, vm_id: str) -> HostedVm | None:
        """Read one VM again; raises as the hypervisor does."""
        ticket = self._fresh.begin()
        found = await self._hypervisor.get(vm_id)
        if self._fresh.takes(vm_id, ticket) and self.vms.get(vm_id) != found:
            if found is None:
                del self.vms[vm_id]
            else:
                self.vms[vm_id] = found
            self._changed()
        return found

    async def truth(self, vm_id: str) -> HostedState:
        """The hypervisor's word at this moment."""
        try:
            return await self._hypervisor.hosted(vm_id)
        except FAILURES as error:
            _log.warning("the hypervisor does not say", vm_id=vm_id, error=str(error))
            return HostedState.UNKNOWN

    async def follow(self) -> None:
        """Hear the hypervisor's events, for ever."""
        async for vm_id in self._hypervisor.events():
            if not vm_id:
                self._missed()
                continue
            if self._looked_after(vm_id):
                continue
            try:
                await self.look(vm_id)
            except FAILURES as error:
                _log.warning("cannot read a VM", vm_id=vm_id, error=str(error))

    def taps(self) -> frozenset[str]:
        """The devices that VMs have now."""
        return frozenset(t.device for vm in self.vms.values() for t in vm.taps if t.device)
