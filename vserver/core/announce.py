"""What the vCenter must be told of the VMs that are here, and of those that are not any more.

It remembers what was said and what came of it, so that nothing is said twice without need and a
refusal is neither forgotten nor repeated without end. `now` is in seconds of any steady clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import Reason, Refusal
from common.model.vm import Vm, VmState
from common.model.wanted import WantedVm
from vserver.core.epochs import Epochs
from vserver.core.wanted import Wanted
from vserver.hypervisor.port import HostedVm

FIRST_DELAY = 1.0
LAST_DELAY = 30.0
# A VM that left by hand is registered by its new host, which takes a moment; only one that nobody
# claims by then is gone.
GONE_AFTER = 2.0

_STAYS = {VmState.RUNNING, VmState.PAUSED}
_ELSEWHERE = {Reason.STALE_EPOCH, Reason.NOT_OWNER, Reason.RUNNING_IN_TWO_PLACES}


@dataclass(frozen=True, slots=True)
class Register:
    vm: Vm
    state: VmState
    epoch: int

    @property
    def vm_id(self) -> str:
        return self.vm.vm_id


@dataclass(frozen=True, slots=True)
class Deregister:
    vm_id: str
    epoch: int


Message = Register | Deregister


@dataclass(slots=True)
class _Said:
    """The last word on one VM. `again_at` None: it stands as it is until something changes."""

    vm: Vm | None = None
    state: VmState | None = None
    accepted: bool = False
    disowned: bool = False
    again_at: float | None = None
    delay: float = 0.0
    problem: str = ""
    parted: bool = False  # we have deregistered it: should it come back, it comes anew


@dataclass(slots=True)
class Announcer:
    epochs: Epochs
    _said: dict[str, _Said] = field(default_factory=dict)
    _missing_since: dict[str, float] = field(default_factory=dict)
    _in_flight: set[str] = field(default_factory=set)
    _asserting: dict[str, int] = field(default_factory=dict)

    # ---- what to say ----

    def due(self, wanted: Wanted, hosted: Mapping[str, HostedVm], now: float) -> list[Message]:
        """What should be said now. Nothing before the stream has told us everything."""
        if not wanted.in_step:
            return []
        self._forget(wanted, hosted)
        return [*self._registrations(wanted, hosted, now), *self._farewells(wanted, hosted, now)]

    def next_due(self, now: float) -> float | None:
        """Seconds until there may be something to say that no event announces."""
        times = [s.again_at for s in self._said.values() if s.again_at is not None]
        times += [since + GONE_AFTER for since in self._missing_since.values()]
        ahead = [time - now for time in times if time > now]
        return min(ahead) if ahead else None

    def _registrations(
        self, wanted: Wanted, hosted: Mapping[str, HostedVm], now: float
    ) -> list[Message]:
        said = []
        for vm_id, vm in hosted.items():
            known = wanted.vms.get(vm_id)
            if vm_id in self._in_flight or (known is not None and _is_moving(known)):
                continue
            if self._registers(vm, known, now):
                said.append(Register(vm.vm, vm.state, self._epoch(vm_id, known)))
        return list(said)

    def _registers(self, vm: HostedVm, known: WantedVm | None, now: float) -> bool:
        last = self._said.get(vm.vm.vm_id)
        if last is None or last.state is not vm.state or last.vm != vm.vm:
            return True
        if vm.state is VmState.INCOMING:
            return _is_over(last, now)
        owned = known is not None and known.owned
        if last.accepted and owned:
            last.disowned, last.again_at, last.delay = False, None, 0.0
            return False
        if last.accepted and not last.disowned:
            # The stream lags behind the answer, or it took the VM from us: ask, but not at once.
            last.disowned, last.delay = True, last.delay or FIRST_DELAY
            last.again_at = now + last.delay
        return _is_over(last, now)

    def _farewells(
        self, wanted: Wanted, hosted: Mapping[str, HostedVm], now: float
    ) -> list[Message]:
        gone = {
            vm_id: vm
            for vm_id, vm in wanted.vms.items()
            if vm.owned and not _is_moving(vm) and vm_id not in hosted
        }
        since = self._missing_since
        self._missing_since = {vm_id: since.get(vm_id, now) for vm_id in gone}
        return [
            Deregister(vm_id, gone[vm_id].epoch)
            for vm_id, first in self._missing_since.items()
            if now >= first + GONE_AFTER
            and vm_id not in self._in_flight
            and ((last := self._said.get(vm_id)) is None or _is_over(last, now, True))
        ]

    def _epoch(self, vm_id: str, known: WantedVm | None) -> int:
        last = self._said.get(vm_id)
        if last is not None and last.parted:
            return 0
        held = max(self.epochs.held(vm_id), self._asserting.get(vm_id, 0))
        return max(known.epoch if known is not None else 0, held)

    def _forget(self, wanted: Wanted, hosted: Mapping[str, HostedVm]) -> None:
        """Words about VMs that neither side knows any more, and epochs of those that left."""
        for vm_id in self._said.keys() - hosted.keys() - wanted.vms.keys():
            del self._said[vm_id]
        for vm_id in self._asserting.keys() - hosted.keys() - wanted.vms.keys():
            del self._asserting[vm_id]
        stay = {vm_id for vm_id, vm in hosted.items() if vm.state in _STAYS}
        stay |= {vm_id for vm_id, vm in wanted.vms.items() if vm.owned}
        self.epochs.release(self.epochs.holding() - stay)

    # ---- what came of it ----

    def sending(self, message: Message) -> None:
        self._in_flight.add(message.vm_id)

    def accepted(self, message: Message, now: float) -> None:
        self._in_flight.discard(message.vm_id)
        self._asserting.pop(message.vm_id, None)
        before = self._said.get(message.vm_id, _Said())
        if isinstance(message, Register):
            delay = _longer(before.delay) if before.disowned else 0.0
            self._said[message.vm_id] = _Said(message.vm, message.state, True, delay=delay)
        else:  # the stream will say that it is gone; give it a moment
            self.epochs.release([message.vm_id])
            self._said[message.vm_id] = _Said(again_at=now + FIRST_DELAY, parted=True)

    def refused(self, message: Message, refusal: Refusal, now: float) -> None:
        """Said again later, and not before the vCenter has asked for it; the leftover of a VM that
        the ledger places elsewhere much later, for one day the ledger may have nothing else of that
        VM."""
        reason = refusal.reason
        said = self._not_accepted(message, now, min(refusal.retry_after or 0.0, LAST_DELAY))
        said.problem = f"{reason.name}: {refusal.message}"
        if reason in _ELSEWHERE:
            self._asserting.pop(message.vm_id, None)
        if reason is Reason.STALE_EPOCH:  # it had left since, unseen: what is here is an arrival
            self.epochs.release([message.vm_id])
        if said.state is VmState.SHUT_OFF and reason in _ELSEWHERE:
            said.delay = LAST_DELAY
            said.again_at = now + said.delay

    def unanswered(self, message: Message, now: float) -> None:
        """Nobody knows what came of it; saying it again is harmless."""
        self._not_accepted(message, now)

    def _not_accepted(self, message: Message, now: float, least: float = 0.0) -> _Said:
        self._in_flight.discard(message.vm_id)
        before = self._said.get(message.vm_id, _Said())
        said = _Said(problem=before.problem)
        if isinstance(message, Register):
            said.vm, said.state = message.vm, message.state
        repeated = (before.vm, before.state) == (said.vm, said.state)
        said.delay = max(_longer(before.delay) if repeated else FIRST_DELAY, least)
        said.again_at = now + said.delay
        self._said[message.vm_id] = said
        return said

    def abandoned(self, message: Message) -> None:
        """Not sent after all."""
        self._in_flight.discard(message.vm_id)

    def reattached(self) -> None:
        """Another vCenter, or the same one again: whatever failed may be tried at once."""
        for said in self._said.values():
            if said.again_at is not None:
                said.again_at, said.delay = 0.0, 0.0

    def assert_all(self) -> None:
        """The ledger is not the one that we spoke to before (a restored backup): everything is said
        again, with the epochs at which we own what is here, whatever it thinks of them."""
        self._said.clear()
        self._asserting = dict(self.epochs.known().held)

    def problem(self, vm_id: str) -> str:
        """Why the last registration was refused; "" if it was not."""
        said = self._said.get(vm_id)
        return said.problem if said is not None else ""


def _is_moving(known: WantedVm) -> bool:
    """A move speaks for itself."""
    return known.move is not None and not known.move.apart


def _longer(delay: float) -> float:
    return min(delay * 2 or FIRST_DELAY, LAST_DELAY)


def _is_over(last: _Said, now: float, otherwise: bool = False) -> bool:
    return now >= last.again_at if last.again_at is not None else otherwise
