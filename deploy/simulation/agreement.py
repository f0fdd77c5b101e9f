"""Whether everybody agrees again (I6): ledgers, hypervisors, ports, forwarding, and real frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.model.operation import Operation, Phase
from common.model.place import is_abroad
from common.model.profile import IPV4, TCP, Profile, effective
from common.model.server import Group, Liveness, Server
from common.model.vm import VmRecord, VmState
from deploy.simulation.journal import short
from deploy.simulation.laws import vms
from deploy.simulation.world import Host, World
from vserver.network.frame import Frame


class Agreement:
    """Looks at everything once; `disagreements` says what is not as it should be.

    `near`: of each domain, those whose members its hosts can reach; its own alone, if not given.
    """

    def __init__(self, world: World, near: Mapping[str, frozenset[str]] | None = None) -> None:
        self._world = world
        self._near = near or {name: frozenset({name}) for name in world.centers}
        self._hosts = world.hosts
        self._vms: dict[str, VmRecord] = {}
        self._homes: dict[str, str] = {}  # of each VM, the domain whose ledger has it
        self._twice: list[str] = []
        for domain, center in world.centers.items():
            self._gather(domain, vms(center.laws.records))

    def _gather(self, domain: str, records: Mapping[str, VmRecord]) -> None:
        for vm_id, record in records.items():
            if is_abroad(record.location.server_id):
                continue  # its move is not over
            if vm_id in self._homes:
                self._twice.append(f"{short(vm_id)} is in {self._homes[vm_id]} and in {domain}")
            self._vms[vm_id], self._homes[vm_id] = record, domain

    def disagreements(self) -> list[str]:
        return [
            *self._twice,
            *self._servers(),
            *self._operations(),
            *(text for vm_id in self._known() for text in self._vm(vm_id)),
            *(text for host in self._hosts.values() for text in self._left_over(host)),
            *(text for host in self._hosts.values() for text in self._forwarding(host)),
            *self._frames(),
        ]

    def _known(self) -> list[str]:
        here = {vm_id for h in self._hosts.values() for vm_id in h.machine.vms}
        return sorted(here | set(self._vms))

    def _servers(self) -> Iterator[str]:
        for name, host in self._hosts.items():
            record = host.center.laws.records.get(f"server/{name}")
            if not isinstance(record, Server) or record.liveness is not Liveness.ATTACHED:
                yield f"{name} is not attached"

    def _operations(self) -> Iterator[str]:
        for domain, center in self._world.centers.items():
            for record in center.laws.records.values():
                if isinstance(record, Operation) and not record.phase.final:
                    if record.phase is Phase.MIRRORING:
                        yield from self._standby(record)
                        continue
                    what = short(record.vm_id) if record.vm_id else record.subject
                    yield f"in {domain} the move of {what} is still {record.phase}"

    def _standby(self, standby: Operation) -> Iterator[str]:
        """In step, as the ledger says; and at its host there are files and nothing else."""
        vm_id, there = standby.vm_id, self._hosts[standby.destination].machine
        origin = self._hosts[standby.source].machine
        guest, mirror = origin.vms.get(vm_id), origin.mirrors.get(vm_id)
        name = f"the standby of {short(vm_id)}"
        if vm_id in there.vms:
            yield f"{name} is defined on {there.name}"
        if guest is None:
            yield f"{name} is of a VM that is not on {origin.name}"
        elif guest.active and not (mirror and mirror.in_step and not mirror.broken):
            yield f"{name} is not in step"
        elif any(origin.disks.files[p] != there.disks.files.get(p) for p in _paths(standby)):
            yield f"{name} is not what {short(vm_id)} wrote"

    # ---- one VM ----

    def _vm(self, vm_id: str) -> Iterator[str]:
        record = self._vms.get(vm_id)
        having = {n: h.machine.vms[vm_id] for n, h in self._hosts.items() if vm_id in h.machine.vms}
        having = {n: vm for n, vm in having.items() if not self._is_left(vm_id, n, vm.state)}
        active = [name for name, vm in having.items() if vm.active]
        if record is not None and record.location.state is VmState.LOST_NEEDS_FENCE:
            return
        if len(active) > 1:
            states = ", ".join(f"{having[name].state} on {name}" for name in active)
            yield f"{short(vm_id)} is {states}"
        if record is None:
            if having:
                yield f"{short(vm_id)} is on {' and '.join(having)}, and not in the ledger"
            return
        owner, state = record.location.server_id, record.location.state
        if not having:
            yield f"{short(vm_id)} is nowhere; the ledger has it on {owner}"
        elif owner not in (active or having):
            places = " and ".join(active or having)
            yield f"{short(vm_id)} is on {places}; the ledger has it on {owner}"
        elif having[owner].state is not state:
            yield f"{short(vm_id)} is {having[owner].state}, and {state} in the ledger"
        elif not self._world.truth.writings.is_current(self._hosts[owner].machine, vm_id):
            yield f"{short(vm_id)} is not with its disk, on {owner}"
        else:
            yield from self._ports(record, self._hosts[owner])

    def _is_left(self, vm_id: str, name: str, state: VmState) -> bool:
        """A copy at a destination that was silent when its move went back (a known shortcoming):
        it is paused, nobody is told to run it, and its ports are closed."""
        left = (vm_id, name) in self._hosts[name].center.laws.left_by_silence
        return left and state is VmState.INCOMING

    def profile(self, record: VmRecord) -> Profile:
        records = self._world.centers[self._homes[record.vm.vm_id]].laws.records
        group = records.get(f"group/{record.vm.tenant}/{record.vm.group}")
        base = group.profile if isinstance(group, Group) and record.vm.group else None
        return effective(record.vm.profile, base)

    def _ports(self, record: VmRecord, host: Host) -> Iterator[str]:
        guest = host.machine.vms[record.vm.vm_id]
        by_mac = {i.mac: i for i in record.vm.interfaces}
        name = short(record.vm.vm_id)
        for tap in guest.described.taps if guest.active else ():
            port = host.machine.wires.ports.get(tap.device)
            is_open = port is not None and port.is_open
            nic = by_mac.get(tap.mac)
            wanted = record.vm.assigned and nic is not None and bool(nic.vni)
            if is_open != wanted:
                yield f"{name}: its port is {'open' if is_open else 'closed'} on {host.name}"
            elif port is not None and nic is not None and is_open:
                if port.policy_hash != self.profile(record).digest():
                    yield f"{name}: its policy on {host.name} is an old one"
                if (port.vni, host.machine.wires.taps.get(tap.device)) != (nic.vni, nic.vni):
                    yield f"{name}: its tap on {host.name} is not in its network"

    # ---- hosts ----

    def _left_over(self, host: Host) -> Iterator[str]:
        for device in sorted(host.machine.wires.ports):
            if device not in host.machine.wires.taps:
                yield f"{host.name} has a port for {device}, which is not there"
        standbys = host.center.laws.standbys()
        ends = {(s.vm_id, end) for s in standbys for end in (s.source, s.destination)}
        machine = host.machine
        for vm_id in sorted(machine.at_gate):
            record = self._vms.get(vm_id)
            if record is None or record.location.state is not VmState.LOST_NEEDS_FENCE:
                yield f"{short(vm_id)} is still held on {host.name}"
        for vm_id in sorted(host.notes.kept):
            if machine.keeps_off(vm_id) and self._is_free(vm_id, host):
                yield f"{host.name} keeps {short(vm_id)} from starting, for a move that is over"
        for vm_id in sorted({*machine.copies_kept, *machine.mirrors}):
            if (vm_id, host.name) not in ends:
                yield f"{host.name} goes on with a standby of {short(vm_id)} that has ended"

    def _is_free(self, vm_id: str, host: Host) -> bool:
        """In peace there is no move that the gate could wait for."""
        record, there = self._vms.get(vm_id), host.machine.vms.get(vm_id)
        if record is not None and record.location.state is VmState.LOST_NEEDS_FENCE:
            return False
        return there is None or not self._is_left(vm_id, host.name, there.state)

    def _forwarding(self, host: Host) -> Iterator[str]:
        """What every host should know of every VNI follows from the ledgers alone."""
        owners: dict[int, list[tuple[str, str]]] = {}
        near = self._near[host.center.site.domain]
        for vm_id, record in self._vms.items():
            if self._homes[vm_id] not in near:
                continue
            for nic in record.vm.interfaces:
                if nic.vni:
                    owners.setdefault(nic.vni, []).append((nic.mac, record.location.server_id))
        for vni in sorted(owners.keys() | host.machine.wires.networks.keys()):
            members = {owner for _, owner in owners.get(vni, ())}
            there = host.machine.wires.networks.get(vni)
            if host.name not in members:
                if there is not None:
                    yield f"{host.name} still has VNI {vni}"
                continue
            wanted = {
                (mac, self._hosts[owner].vtep) for mac, owner in owners[vni] if owner != host.name
            }
            found = {(f.mac, f.vtep_address) for f in there.forwards} if there else None
            if found != wanted:
                differs = sorted((found or set()) ^ wanted)
                yield f"{host.name} forwards VNI {vni} otherwise than the ledger says: {differs}"

    # ---- frames ----

    def _frames(self) -> Iterator[str]:
        """Every running VM reaches every other, is not reached where policy forbids it, and
        cannot speak under another's name."""
        running = [
            (record, self._hosts[record.location.server_id])
            for record in self._vms.values()
            if record.location.state is VmState.RUNNING and record.vm.assigned
        ]
        for sender, at in running:
            for receiver, to in running:
                if sender is not receiver and self._may_reach(sender, receiver):
                    yield from self._one_way(sender, at, receiver, to)

    def _may_reach(self, sender: VmRecord, receiver: VmRecord) -> bool:
        near = self._near[self._homes[sender.vm.vm_id]]
        is_near = self._homes[receiver.vm.vm_id] in near
        return is_near and bool(sender.vm.vnis() & receiver.vm.vnis())

    def _one_way(self, sender: VmRecord, at: Host, receiver: VmRecord, to: Host) -> Iterator[str]:
        heard = (to.vtep, self._device(to, receiver))
        denied = self.profile(receiver).acl is not None
        tries = (
            (self._frame(sender, receiver, 80), True, "does not reach"),
            (self._frame(sender, receiver, 22), not denied, "gets past the policy of"),
            (self._frame(receiver, receiver, 80), False, "speaks as another to"),
        )
        for frame, expected, words in tries:
            got = self._world.fabric.send(at.vtep, self._device(at, sender), frame)
            if got != ({heard} if expected else set()):
                yield f"{short(sender.vm.vm_id)} {words} {short(receiver.vm.vm_id)}"

    def _device(self, host: Host, record: VmRecord) -> str:
        guest = host.machine.vms.get(record.vm.vm_id)
        return guest.described.taps[0].device if guest is not None else ""

    def _frame(self, claimed: VmRecord, to: VmRecord, port: int) -> Frame:
        source, target = claimed.vm.interfaces[0], to.vm.interfaces[0]
        return Frame(
            source_mac=source.mac,
            destination_mac=target.mac,
            ethertype=IPV4,
            source_ip=source.ips[0],
            destination_ip=target.ips[0],
            protocol=TCP,
            source_port=40000,
            destination_port=port,
        )


def _paths(standby: Operation) -> list[str]:
    return [disk.path for disk in standby.disks]
