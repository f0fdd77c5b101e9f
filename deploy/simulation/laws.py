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
from common.model.operation import Operation, Phase
from common.model.server import Liveness, Server
from common.model.vm import Tombstone, VmRecord, VmState
from common.model.wanted import PortState, WantedVm
from common.pb.vsignal.v1 import session_pb2
from deploy.simulation.disk import Disk
from deploy.simulation.journal import Journal
from deploy.simulation.machines import Machine, short
from vcenter.core.keys import VM, Ledgered, server
from vcenter.ledger.records import decode
from vcenter.store.port import Entry
from vserver.network.port import Port

LATELY_S = 3.0  # an agent that was told may still be doing what it was told before
ASKED_S = 20.0  # so old may an answer be on which an owner changes
BY_HAND_S = 25.0  # what a host said of a VM may be so old when somebody touches the VM
_BACK = (Phase.ABORTING, Phase.FAILED, Phase.CANCELLED)
_ABLE = (VmState.RUNNING, VmState.PAUSED)


@dataclass
class _Told:
    """What a host was told of a VM: the last word, and the one before until when."""

    now: WantedVm | None = None
    before: list[tuple[float, WantedVm]] = field(default_factory=list)


class Laws:
    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        self._journal = journal
        self._now = now
        self.machines: dict[str, Machine] = {}
        self.disk: Disk
        self.touched: dict[str, float] = {}  # when somebody last did something to a VM by hand
        self.records: dict[str, Ledgered] = {}  # as they are on the disk
        self.log: dict[tuple[int, str], Ledgered | None] = {}  # every change of a VM, by revision
        self.left_by_silence: set[tuple[str, str]] = set()  # a VM, and where a copy may be left
        self._asked: dict[tuple[str, str], float] = {}
        self._born: dict[str, float] = {}
        self._owners: dict[str, tuple[int, str]] = {}  # epoch and owner, through deregistration
        self._told: dict[tuple[str, str], _Told] = {}
        self._owned_until: dict[tuple[str, str], float] = {}

    # ---- I1: one host runs a VM ----

    def guest(self, machine: Machine, vm_id: str) -> None:
        able = [name for name, m in self.machines.items() if self._is_able(m, vm_id)]
        if len(able) > 1:
            self._journal.violated("I1", f"{short(vm_id)} can run on {' and '.join(able)}")

    def _is_able(self, machine: Machine, vm_id: str) -> bool:
        vm = machine.vms.get(vm_id)
        return machine.powered and vm is not None and vm.state in _ABLE

    def is_active(self, name: str, vm_id: str) -> bool:
        machine = self.machines.get(name)
        return machine is not None and (vm := machine.vms.get(vm_id)) is not None and vm.active

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
                if before is None:
                    self._born[put.key[len(VM) :]] = self._now()
            if record is not None:
                self.records[put.key] = record
            if isinstance(record, VmRecord):
                at, moved = record.location, bool(record.operation_id)
                self._owner(record.vm.vm_id, at.epoch, at.server_id, moved=moved)
            elif isinstance(record, Operation) and record.phase is Phase.LOST_NEEDS_FENCE:
                self._lost(record)
            elif isinstance(record, Tombstone):
                self._owner(record.vm_id, record.epoch, "")
            elif record is None and isinstance(before, VmRecord):
                self._forgotten(before)

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
            if owner_before and self.is_active(owner_before, vm_id) and not self._by_hand(vm_id):
                text = f"{short(vm_id)} given to {owner}, and it is active on {owner_before}"
                self._journal.violated("I7", text)
            self._owned_until[owner_before, vm_id] = self._now()
            self._journal.say("ledger", f"{short(vm_id)} belongs to {owner}, epoch {epoch}")
        if not owner:
            self._owned_until[owner_before, vm_id] = self._now()
        self._owners[vm_id] = epoch, owner

    def _forgotten(self, record: VmRecord) -> None:
        owner, vm_id = record.location.server_id, record.vm.vm_id
        self._journal.say("ledger", f"{short(vm_id)} deregistered by {owner}")
        # What was done by hand before it was registered is known to everybody.
        known = self._born.get(vm_id, 0.0) > self.touched.get(vm_id, 0.0)
        if self.is_active(owner, vm_id) and (known or not self._by_hand(vm_id)):
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
        able = [h for h in (move.source, move.destination) if self.is_active(h, vm_id)]
        self._journal.say("ledger", f"{short(vm_id)} is lost")
        if able and not self._by_hand(vm_id):
            self._journal.violated("I7", f"{short(vm_id)} called lost, and active on {able}")

    def _was_asked(self, host: str, vm_id: str) -> bool:
        return self._now() - self._asked.get((host, vm_id), -ASKED_S) < ASKED_S

    def _by_hand(self, vm_id: str) -> bool:
        return self._now() - self.touched.get(vm_id, -BY_HAND_S) < BY_HAND_S

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
        machine = self.machines[host]
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
        cut_off = self.is_active(host, vm_id) and self.machines[host].vms[vm_id].state in _ABLE
        if not is_owner and not cut_off and self._now() - was > LATELY_S:
            text = f"{host} opened a port of {short(vm_id)}, which it does not own"
            self._journal.violated("I5", text)


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
