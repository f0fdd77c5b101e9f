"""What must always hold, checked after everything that happens.

The truth is taken from the machines, the wires and the disk, and from what travels over the
network: never from what our own code believes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from common.codec.checker import Checker
from common.codec.wanted import from_wanted_vm
from common.model.operation import MoveKind, Operation, Phase
from common.model.place import is_abroad
from common.model.server import Liveness, Server
from common.model.vm import Tombstone, VmRecord
from common.model.wanted import PortState, WantedVm
from common.pb.vsignal.v1 import session_pb2
from deploy.simulation.disk import Disk
from deploy.simulation.journal import Journal, short
from deploy.simulation.truth import Truth
from vcenter.core.keys import VM, Ledgered, server
from vcenter.ledger.records import decode
from vcenter.store.port import Entry
from vserver.network.port import Port

LATELY_S = 3.0  # an agent that was told may still be doing what it was told before
ASKED_S = 20.0  # so old may an answer be on which an owner changes
_BACK = (Phase.ABORTING, Phase.FAILED, Phase.CANCELLED)


@dataclass
class _Told:
    """What a host was told of a VM: the last word, and the one before until when."""

    now: WantedVm | None = None
    before: list[tuple[float, WantedVm]] = field(default_factory=list)


class Laws:
    """Of one vCenter: its ledger, and the hosts whose agents are its own.

    `placed(vm_id, before, after)` hears of every change of a VM's record that has become durable.
    """

    def __init__(self, journal: Journal, now: Callable[[], float], truth: Truth) -> None:
        self._journal = journal
        self._now = now
        self._truth = truth
        self.disk: Disk
        self.placed: Callable[[str, VmRecord | None, VmRecord | None], None] | None = None
        self.records: dict[str, Ledgered] = {}  # as they are on the disk
        self.log: dict[tuple[int, str], Ledgered | None] = {}  # every change of a VM, by revision
        self.left_by_silence: set[tuple[str, str]] = set()  # a VM, and where a copy may be left
        self._asked: dict[tuple[str, str], float] = {}
        self._born: dict[str, float] = {}
        self._owners: dict[str, tuple[int, str]] = {}  # epoch and owner, through deregistration
        self._told: dict[tuple[str, str], _Told] = {}
        self._owned_until: dict[tuple[str, str], float] = {}
        self._silent_since: dict[str, float] = {}  # hosts

    # ---- I2: what was said is durable ----

    def said(self, method: str, message: Message) -> None:
        newest = _newest(message)
        if newest > self.disk.durable:
            text = f"{method} spoke of revision {newest}, {self.disk.durable} is durable"
            self._journal.violated("I2", text)

    # ---- I3, I7: epochs grow, owners change on proof, nothing is forgotten that runs ----

    def written(self, entry: Entry) -> None:
        for put in entry.puts:
            record = decode(put.key, put.value) if put.value is not None else None
            before = self.records.pop(put.key, None)
            self._left_by_silence(record)
            if put.key.startswith(VM):
                self.log[entry.revision, put.key] = record
                self._place(put.key[len(VM) :], before, record)
            if record is not None:
                self.records[put.key] = record
            if isinstance(record, VmRecord) and (_is_own(record) or _is_own(before)):
                at, moved = record.location, bool(record.operation_id)
                self._owner(record.vm.vm_id, at.epoch, at.server_id, moved=moved)
            elif isinstance(record, Server):
                self._heard(record)
            elif isinstance(record, Operation) and record.phase is Phase.LOST_NEEDS_FENCE:
                self._lost(record)
            elif isinstance(record, Tombstone) and _is_own(record.last):
                self._owner(record.vm_id, record.epoch, "")
            elif record is None and isinstance(before, VmRecord) and _is_own(before):
                self._forgotten(before)

    def _place(self, vm_id: str, before: Ledgered | None, after: Ledgered | None) -> None:
        if before is None:
            self._born[vm_id] = self._now()
        if self.placed is not None:
            was = before if isinstance(before, VmRecord) else None
            self.placed(vm_id, was, after if isinstance(after, VmRecord) else None)

    def _owner(self, vm_id: str, epoch: int, owner: str, *, moved: bool = False) -> None:
        epoch_before, owner_before = self._owners.get(vm_id, (0, ""))
        if owner == owner_before or not owner:
            if epoch < epoch_before:
                self._journal.violated("I3", f"{short(vm_id)}: epoch {epoch_before} -> {epoch}")
        else:
            if epoch <= epoch_before:
                text = f"{short(vm_id)}: {owner} at epoch {epoch}, after {epoch_before}"
                self._journal.violated("I3", text)
            if owner_before and not moved and not self._was_asked(owner_before, vm_id):
                text = f"{short(vm_id)} given to {owner}, and {owner_before} was not asked"
                self._journal.violated("I7", text)
            if self._is_left_active(owner_before, vm_id):
                text = f"{short(vm_id)} given to {owner}, and it is active on {owner_before}"
                self._journal.violated("I7", text)
            self._owned_until[owner_before, vm_id] = self._now()
            self._journal.say("ledger", f"{short(vm_id)} belongs to {owner}, epoch {epoch}")
        if not owner:
            self._owned_until[owner_before, vm_id] = self._now()
        self._owners[vm_id] = epoch, owner

    def _is_left_active(self, owner: str, vm_id: str) -> bool:
        is_active = bool(owner) and self._truth.is_active(owner, vm_id)
        if is_active and self._truth.is_held(owner, vm_id):
            return False
        return is_active and not self._truth.by_hand(vm_id)

    def _forgotten(self, record: VmRecord) -> None:
        owner, vm_id = record.location.server_id, record.vm.vm_id
        self._journal.say("ledger", f"{short(vm_id)} deregistered by {owner}")
        # What was done by hand before it was registered is known to everybody.
        known = self._born.get(vm_id, 0.0) > self._truth.touched.get(vm_id, 0.0)
        if self._truth.is_active(owner, vm_id) and (known or not self._truth.by_hand(vm_id)):
            self._journal.violated("I7", f"{short(vm_id)} forgotten while active on {owner}")

    def _left_by_silence(self, record: Ledgered | None) -> None:
        """A move that goes back without the word of its silent destination may leave a copy."""
        if isinstance(record, Operation) and record.phase in _BACK:
            destination = self.records.get(server(record.destination))
            if isinstance(destination, Server) and destination.liveness is Liveness.SILENT:
                self.left_by_silence.add((record.vm_id, record.destination))

    def _lost(self, move: Operation) -> None:
        """Neither side has it. A third may, by hand: nobody has asked there."""
        vm_id = move.vm_id
        able = [h for h in (move.source, move.destination) if self._truth.is_active(h, vm_id)]
        self._journal.say("ledger", f"{short(vm_id)} is lost")
        if able and not self._truth.by_hand(vm_id):
            self._journal.violated("I7", f"{short(vm_id)} called lost, and active on {able}")

    def _heard(self, host: Server) -> None:
        if host.liveness is Liveness.ATTACHED:
            self._silent_since.pop(host.server_id, None)
        else:
            self._silent_since.setdefault(host.server_id, self._now())

    def standby(self, vm_id: str) -> Operation | None:
        """The one that has not ended."""
        return next((s for s in self.standbys() if s.vm_id == vm_id), None)

    def standbys(self) -> list[Operation]:
        """Those that have begun, and have not ended."""
        known = self.records.values()
        begun = (r for r in known if isinstance(r, Operation) and r.phase is not Phase.QUEUED)
        return [s for s in begun if s.move_kind is MoveKind.STANDBY and not s.phase.final]

    def started(self, host: str, vm_id: str) -> None:
        """A gate was passed: the ledger has the VM there, or somebody has touched it."""
        owner = self._owners.get(vm_id, (0, ""))[1]
        if owner != host and not self._truth.by_hand(vm_id):
            text = f"{short(vm_id)} passed the gate of {host}, and belongs to {owner or 'nobody'}"
            self._journal.violated("I7", text)

    def promoted(self, host: str, vm_id: str) -> float:
        """A standby becomes a guest: by its promotion, and in no other way. Until when its
        original's host was heard."""
        standby = self.standby(vm_id)
        if standby is None or (standby.phase, standby.destination) != (Phase.SWITCHING, host):
            text = f"the standby of {short(vm_id)} became a guest on {host}, and was not promoted"
            self._journal.violated("standby", text)
            return self._now()
        return self._silent_since.get(standby.source, self._now())

    def _was_asked(self, host: str, vm_id: str) -> bool:
        return self._now() - self._asked.get((host, vm_id), -ASKED_S) < ASKED_S

    # ---- I5: what opens is what was ordered, where the VM belongs ----

    def heard(self, host: str, method: str, message: bytes) -> None:
        """Something has arrived at a host."""
        if not method.endswith("/Attach"):
            return
        down = session_pb2.CenterMessage.FromString(message)
        kind = down.WhichOneof("message")
        if kind == "vm":
            self._tell(host, down.vm.vm.vm_id, from_wanted_vm(Checker(), down.vm))
        elif kind == "vm_gone":
            self._tell(host, down.vm_gone, None)
        elif kind == "ask":
            self._asked[host, down.ask.vm_id] = self._now()

    def _tell(self, host: str, vm_id: str, wanted: WantedVm | None) -> None:
        told = self._told.setdefault((host, vm_id), _Told())
        if told.now is not None:
            told.before.append((self._now(), told.now))
        told.before = [(t, w) for t, w in told.before if self._now() - t <= LATELY_S]
        told.now = wanted

    def opened(self, host: str, port: Port) -> None:
        machine = self._truth.machines[host]
        guests = [i for i, vm in machine.vms.items() if _has(vm.described.taps, port)]
        wanted = [
            w for (name, _), told in self._told.items() if name == host for w in self._lately(told)
        ]
        if not any(_is_ordered(port, w) for w in wanted):
            text = f"{host} opened {port.device} ({port.mac}) in a way that nobody ordered"
            self._journal.violated("I5", text)
        for vm_id in guests:
            self._may_open(host, vm_id)

    def _lately(self, told: _Told) -> list[WantedVm]:
        before = [w for t, w in told.before if self._now() - t <= LATELY_S]
        return [*before, told.now] if told.now is not None else before

    def _may_open(self, host: str, vm_id: str) -> None:
        is_owner = self._owners.get(vm_id, (0, ""))[1] == host
        was = self._owned_until.get((host, vm_id), float("-inf"))
        cut_off = self._truth.is_able(host, vm_id)
        if not is_owner and not cut_off and self._now() - was > LATELY_S:
            text = f"{host} opened a port of {short(vm_id)}, which it does not own"
            self._journal.violated("I5", text)


def _is_own(record: Ledgered | None) -> bool:
    """Of a VM that is this ledger's to speak for; others are in it for a move's sake."""
    return isinstance(record, VmRecord) and not is_abroad(record.location.server_id)


def _has(taps: Any, port: Port) -> bool:
    return any(tap.device == port.device and tap.mac == port.mac for tap in taps)


def _is_ordered(port: Port, wanted: WantedVm) -> bool:
    """The VM's own address, network and policy, and open is what was asked for."""
    if wanted.ports is not PortState.OPEN or wanted.profile_hash != port.policy_hash:
        return False
    return any(
        (i.mac, i.vni, frozenset(i.ips)) == (port.mac, port.vni, frozenset(port.ips))
        for i in wanted.vm.interfaces
    )


def _newest(message: Message) -> int:
    """The highest revision that a message speaks of."""
    newest = 0
    for descriptor, value in message.ListFields():
        if descriptor.name == "revision":
            newest = max(newest, value)
        elif isinstance(value, Message):
            newest = max(newest, _newest(value))
    return newest


def vms(records: Mapping[str, Ledgered]) -> dict[str, VmRecord]:
    """The ledger's VMs, as they are on the disk."""
    return {r.vm.vm_id: r for r in records.values() if isinstance(r, VmRecord)}
