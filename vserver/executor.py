"""The reconcile loop: what differs between wanted and observed is carried out, again and again.

Whoever learns of a change rings; rings are merged. A change that arrives in the middle of a long
list ends it: the list is made anew, and what must be closed stands at its beginning.
"""

from __future__ import annotations

from collections.abc import Callable

from common import log
from common.clock import Clock
from common.errors import Refusal
from common.wake import Wake
from vserver.core.diff import (
    ApplyNetwork,
    ApplyPort,
    Operation,
    RemoveNetwork,
    RemovePort,
    diff,
)
from vserver.core.ports import desired_ports
from vserver.core.wanted import Wanted
from vserver.dataplane import DataPlane
from vserver.guests import Guests

GUARD = 0.1  # seconds between looks at whether the data plane is as we left it
BEAT = 5.0  # seconds between full readings, for what no event told

_log = log.get(__name__)


class Executor:
    def __init__(
        self,
        wanted: Wanted,
        guests: Guests,
        plane: DataPlane,
        applied: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._wanted = wanted
        self._guests = guests
        self._plane = plane
        self._applied = applied  # something was carried out
        self._clock = clock
        self._failed: list[Operation] = []  # since the last beat; not tried again before the next
        self._sweep_due = self._sweeping = False
        self.wake = Wake(clock)
        self.look = Wake(clock)  # do not wait for the beat

    async def beat(self) -> None:
        """Read everything again, for ever. The VMs first: libvirtd, restarted, answers for one
        only when it has put its tap back to where the VM's definition says."""
        while True:
            await self._guests.refresh()
            await self._plane.refresh()
            self._failed.clear()
            self._sweep_due = True
            self.wake.ring()
            await self.look.heard(BEAT)

    async def guard(self) -> None:
        """Look at once when somebody else has changed the host's rules, for ever."""
        while True:
            await self._clock.sleep(GUARD)
            if await self._plane.disturbed():
                self.look.ring()

    async def run(self) -> None:
        while True:
            await self.wake.heard()
            await self.reconcile()

    async def reconcile(self) -> None:
        """Until nothing differs, but for what fails."""
        self._sweeping, self._sweep_due = self._sweep_due, False
        while operations := self._operations():
            for operation in operations:
                await self._try(operation)
                if self.wake.rung:
                    return
            self._applied()

    def _operations(self) -> list[Operation]:
        """Nothing, as long as one of the sides of the comparison is not known."""
        if not (self._wanted.complete and self._guests.listed and self._plane.read):
            return []
        ports = desired_ports(self._wanted.vms, self._guests.vms)
        self._plane.forget_problems(keep=ports.keys())
        taps = self._guests.taps()
        operations = diff(ports, self._wanted.networks, self._plane.observed, taps)
        return [o for o in operations if o not in self._failed and not self._can_wait(o, taps)]

    def _can_wait(self, operation: Operation, taps: frozenset[str]) -> bool:
        """What is left of VMs that have gone passes nothing, and is cleared away on the beat: in
        the middle of a move, every cycle is taken from a guest that stands still."""
        if self._sweeping:
            return False
        if isinstance(operation, RemovePort):
            return operation.device not in taps
        return isinstance(operation, RemoveNetwork)

    async def _try(self, operation: Operation) -> None:
        """A failure is that port's own: it stays as it was, and the rest goes on."""
        try:
            await self._plane.apply(operation)
        except Refusal as refusal:
            self._failed.append(operation)
            _log.error(
                "cannot be put in force",
                operation=type(operation).__name__,
                on=_subject(operation),
                reason=refusal.reason.name,
                error=refusal.message,
            )
        else:
            _log.info("in force", operation=type(operation).__name__, on=_subject(operation))


def _subject(operation: Operation) -> str | int:
    match operation:
        case ApplyPort(port):
            return port.device
        case ApplyNetwork(network):
            return network.vni
        case RemovePort(device):
            return device
        case RemoveNetwork(vni):
            return vni
