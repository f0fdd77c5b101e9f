"""Whether everybody agrees again (I6): ledger, hypervisors, ports, forwarding, and real frames."""

from __future__ import annotations

from collections.abc import Iterator

from common.model.operation import Operation
from common.model.profile import IPV4, TCP, Profile, effective
from common.model.server import Group, Liveness, Server
from common.model.vm import VmRecord, VmState
from deploy.simulation.laws import vms
from deploy.simulation.machines import short
from deploy.simulation.world import Host, World
from vserver.network.frame import Frame


class Agreement:
    """Looks at everything once; `disagreements` says what is not as it should be."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hosts = world.hosts
        self._records = world.laws.records
        self._vms = vms(self._records)

    def disagreements(self) -> list[str]:
        return [
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
        for name in self._hosts:
            record = self._records.get(f"server/{name}")
            if not isinstance(record, Server) or record.liveness is not Liveness.ATTACHED:
                yield f"{name} is not attached"

    def _operations(self) -> Iterator[str]:
        for record in self._records.values():
            if isinstance(record, Operation) and not record.phase.final:
                what = short(record.vm_id) if record.vm_id else record.subject
                yield f"the move of {what} is still {record.phase}"

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
        else:
            yield from self._ports(record, self._hosts[owner])

    def _is_left(self, vm_id: str, name: str, state: VmState) -> bool:
        """A copy at a destination that was silent when its move went back (a known shortcoming):
        it is paused, nobody is told to run it, and its ports are closed."""
        left = (vm_id, name) in self._world.laws.left_by_silence
        return left and state is VmState.INCOMING

    def profile(self, record: VmRecord) -> Profile:
        group = self._records.get(f"group/{record.vm.tenant}/{record.vm.group}")
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

    def _forwarding(self, host: Host) -> Iterator[str]:
        """What every host should know of every VNI follows from the ledger alone."""
        owners: dict[int, list[tuple[str, str]]] = {}
        for record in self._vms.values():
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
                yield f"{host.name} forwards VNI {vni} otherwise than the ledger says"

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
        return bool(sender.vm.vnis() & receiver.vm.vnis())

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
