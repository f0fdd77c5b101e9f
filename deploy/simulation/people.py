"""What people do: operators who call the vCenter, and persons with `virsh` on the hosts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from common import rpc
from common.codec.checker import Checker
from common.codec.profile import from_profile
from common.model.operation import Operation
from common.model.server import Group
from common.model.vm import Interface, Resources, Vm, VmState
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from deploy.simulation.center import Center
from deploy.simulation.world import Host, World
from deploy.simulation.writings import Writings, disk_of

TENANT, NETWORK, VNI = "acme", "blue", 1001
IDENTITY = rpc.identity("operator/alice")
CALL_S = 10.0
LIVE = operations_pb2.MOVE_KIND_UNSPECIFIED
KINDS = (LIVE, LIVE, operations_pb2.MOVE_KIND_SUSPEND, operations_pb2.MOVE_KIND_COLD)


WITH_DISKS = frozenset({2, 4})  # VMs


def vm_id(number: int) -> str:
    return f"6e7c5a52-0000-4000-8000-{number:012d}"


def a_vm(number: int) -> Vm:
    """1..3 are of the group, 5 is nobody's yet, all others are of none."""
    mac, ip = f"52:54:00:00:00:{number:02x}", f"10.1.0.{number}"
    tenant = TENANT if number != 5 else ""
    nic = Interface(mac, (ip,), NETWORK, VNI) if tenant else Interface(mac)
    group = "web" if number < 4 else ""
    return Vm(vm_id(number), f"vm{number}", tenant, group, (nic,), None, Resources(1, 96))


def a_profile(chance: random.Random) -> types_pb2.Profile:
    """Ports 22 or 23 are denied, port 80 never is."""
    rule = types_pb2.AclRule(
        action=types_pb2.ACTION_DENY,
        direction=types_pb2.DIRECTION_INGRESS,
        ethertype=0x0800,
        protocol=6,
        destination_ports=types_pb2.PortRange(first=22, last=chance.choice((22, 23))),
    )
    profile = types_pb2.Profile(acl=types_pb2.Acl(rules=[rule]))
    if chance.random() < 0.5:
        profile.egress_rate.bits_per_second = chance.choice((10_000_000, 100_000_000))
    return profile


class Operator:
    """Calls one vCenter, and remembers what it was promised."""

    def __init__(self, world: World, chance: random.Random, center: Center) -> None:
        self._world = world
        self._chance = chance
        self.process = world.process("operator")
        channel = world.channel("operator", center)
        self.signaling = signaling_pb2_grpc.SignalingStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)
        self.inventory = inventory_pb2_grpc.InventoryStub(channel)
        self.directory = directory_pb2_grpc.DirectoryStub(channel)
        self.promised: list[str] = []  # operations that were acknowledged
        self.policy: bytes | None = None  # the group's profile, if it is known for certain
        self._changing = 0  # changes of it whose outcome is not known

    async def declare(self, profile: types_pb2.Profile | None = None) -> None:
        """Until it is done: the vCenter may not be there yet. `profile`: the group's, if given."""
        tenant = types_pb2.Tenant(tenant_id=TENANT)
        network = types_pb2.VirtualNetwork(network_id=NETWORK, tenant=TENANT, vnis=[VNI])
        for call in (
            lambda: self.inventory.PutTenant(
                inventory_pb2.PutTenantRequest(tenant=tenant), metadata=IDENTITY, timeout=CALL_S
            ),
            lambda: self.inventory.PutNetwork(
                inventory_pb2.PutNetworkRequest(network=network), metadata=IDENTITY, timeout=CALL_S
            ),
        ):
            await self._insist("declares", call)
        while self.policy is None:
            await self.set_policy(profile)

    async def _insist(self, what: str, call: Callable[[], Awaitable[Any]]) -> None:
        answer = await self.say(what, call())
        while answer is None:
            await asyncio.sleep(0.5)
            answer = await self.say(what, call())

    async def say(self, what: str, call: Awaitable[Any]) -> Any:
        """The answer; None if it was refused, or nobody knows."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            self._world.journal.say("operator", f"{what}: {error.code().name} {error.details()}")
            return None
        self._world.journal.say("operator", f"{what}: done")
        return answer

    async def set_policy(self, profile: types_pb2.Profile | None = None) -> None:
        profile = profile or a_profile(self._chance)
        group = types_pb2.Group(tenant=TENANT, name="web", profile=profile)
        request = inventory_pb2.PutGroupRequest(group=group)
        self.policy = None
        self._changing += 1
        call = self.inventory.PutGroup(request, metadata=IDENTITY, timeout=CALL_S)
        done = await self.say("sets the group's policy", call)
        if done is not None and self._changing == 1:
            self.policy = profile.SerializeToString(deterministic=True)
        self._changing = 0 if self._changing == 1 and done is not None else self._changing

    def check_policy(self, group: Group) -> None:
        """The last policy that was acknowledged, and nothing after it, is in the ledger."""
        if group.profile != from_profile(
            Checker(), types_pb2.Profile.FromString(self.policy or b"")
        ):
            self._world.journal.violated("I2", "the policy that was acknowledged last is gone")

    async def set_own_policy(self, number: int) -> None:
        profile = a_profile(self._chance) if self._chance.random() < 0.7 else None
        request = inventory_pb2.SetVmProfileRequest(vm_id=vm_id(number), profile=profile)
        call = self.inventory.SetVmProfile(request, metadata=IDENTITY, timeout=CALL_S)
        await self.say(f"sets the policy of vm{number}", call)

    async def assign(self, number: int) -> None:
        nic = a_vm(number).interfaces[0]
        attachment = inventory_pb2.AssignVmRequest.Attachment(mac=nic.mac, network=NETWORK)
        attachment.ips.append(f"10.1.0.{number}")
        request = inventory_pb2.AssignVmRequest(
            vm_id=vm_id(number), tenant=TENANT, interfaces=[attachment]
        )
        call = self.inventory.AssignVm(request, metadata=IDENTITY, timeout=CALL_S)
        await self.say(f"assigns vm{number}", call)

    async def relocate(self, number: int, destination: str) -> str:
        request = signaling_pb2.RelocateRequest(
            vm_id=vm_id(number),
            destination=destination,
            priority=self._chance.choice((0, 0, 0, 50)),
            kind=self._chance.choice(KINDS),
        )
        how = operations_pb2.MoveKind.Name(request.kind)[10:].lower()
        return await self._order(f"moves vm{number} to {destination or 'the best'}, {how}", request)

    async def move_group(self) -> str:
        group = signaling_pb2.RelocateRequest.GroupSubject(tenant=TENANT, group="web")
        return await self._order("moves the group", signaling_pb2.RelocateRequest(group=group))

    async def drain(self, host: str) -> str:
        request = signaling_pb2.RelocateRequest(server_id=host)
        return await self._order(f"drains {host}", request)

    async def _order(
        self, what: str, request: signaling_pb2.RelocateRequest, domain: str = ""
    ) -> str:
        """The operation's id, if it was accepted. `domain`: whose it is, if not the vCenter's."""
        metadata = (*IDENTITY, *rpc.addressed(domain)) if domain else IDENTITY
        call = self.signaling.Relocate(request, metadata=metadata, timeout=CALL_S)
        answer = await self.say(what, call)
        if answer is None:
            return ""
        operation_id: str = answer.operation.operation_id
        self.promised.append(operation_id)
        return operation_id

    async def cancel(self, operation_id: str) -> None:
        request = operations_pb2.CancelOperationRequest(operation_id=operation_id)
        call = self.operations.Cancel(request, metadata=IDENTITY, timeout=CALL_S)
        await self.say("cancels a move", call)

    async def wait(self, operation_id: str) -> None:
        request = operations_pb2.WaitOperationRequest(operation_id=operation_id)
        await self.say("waits for a move", self.operations.Wait(request, metadata=IDENTITY))

    async def follow(self, operation_id: str) -> None:
        request = operations_pb2.GetOperationRequest(operation_id=operation_id)
        try:
            async for operation in self.operations.Follow(request, metadata=IDENTITY):
                phase = operations_pb2.Phase.Name(operation.phase)
                self._world.journal.say("operator", f"hears {phase}")
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_ours():
                raise

    async def where(self, number: int) -> None:
        key = types_pb2.VmKey(ip=types_pb2.VmKey.IpKey(vni=VNI, ip=f"10.1.0.{number}"))
        call = self.directory.Lookup(
            signaling_pb2.LookupRequest(keys=[key]), metadata=IDENTITY, timeout=CALL_S
        )
        await self.say(f"looks for vm{number}", call)

    async def history(self, number: int) -> None:
        request = directory_pb2.VmHistoryRequest(vm_id=vm_id(number), limit=20)
        call = self.directory.VmHistory(request, metadata=IDENTITY, timeout=CALL_S)
        await self.say(f"reads the history of vm{number}", call)


def _is_ours() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Person:
    """Somebody with root on the hosts, who never starts a VM twice, nor one on an old disk.

    `with_disks`: VMs that have a disk of their own; all others have what all hosts can reach."""

    with_disks = WITH_DISKS

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance

    def create(self, number: int, host: Host) -> bool:
        if any(vm_id(number) in h.machine.vms for h in self._world.hosts.values()):
            return False
        if not host.machine.powered or self._is_taken(number, host) or self._is_promoted(number):
            return False
        if host.machine.keeps_off(vm_id(number)):
            return False
        self._does(number, f"creates vm{number} on {host.name}")
        disks = (self._writings.begin(host.machine, vm_id(number)),) if self._has(number) else ()
        host.machine.create(a_vm(number), disks=disks)
        return True

    @property
    def _writings(self) -> Writings:
        return self._world.truth.writings

    def _has(self, number: int) -> bool:
        return number in self.with_disks

    def _is_taken(self, number: int, host: Host) -> bool:
        """Its disk's place, for a copy that is on its way."""
        return vm_id(number) in host.machine.disks.made

    def _is_promoted(self, number: int) -> bool:
        """Its standby is, or could be yet."""
        until = self._world.truth.promoting.get(vm_id(number), 0.0)
        return self._world.loop.time() < until

    def move(self, number: int, to: Host) -> bool:
        """`virsh migrate`, past every control plane; not while a copy is being made."""
        origin = self._active(number)
        if origin is None or origin is to or not to.machine.reachable:
            return False
        machine = origin.machine
        if self._is_settling(number, to):
            return False
        state = machine.vms[vm_id(number)].state
        if state is not VmState.RUNNING or vm_id(number) in machine.copying:
            return False
        there = disk_of(vm_id(number)).path in to.machine.disks.files
        if there or vm_id(number) in machine.mirrors or to.machine.keeps_off(vm_id(number)):
            return False  # libvirt refuses
        self._does(number, f"moves vm{number} to {to.name}")
        self._writings.carry(vm_id(number), machine, to.machine)
        machine.migrate_by_hand(vm_id(number), to.machine)
        return True

    def _is_settling(self, number: int, to: Host) -> bool:
        """A VM is not brought back by hand to where a move is clearing up after it: that move
        would wait for the VM to go, and the VM's new place for the move (a known shortcoming)."""
        return any(
            isinstance(record, Operation)
            and not record.phase.final
            and (record.vm_id, record.source) == (vm_id(number), to.name)
            for center in self._world.centers.values()
            for record in center.laws.records.values()
        )

    def stop(self, number: int) -> bool:
        origin = self._active(number)
        if origin is None:
            return False
        self._does(number, f"stops vm{number}")
        origin.machine.stop(vm_id(number))
        if self._undefines() and vm_id(number) in origin.machine.vms:
            self.clear(origin, vm_id(number))
            for host in self._hosts():  # what a promotion has left elsewhere
                if vm_id(number) in host.machine.vms and not host.machine.vms[vm_id(number)].active:
                    self.clear(host, vm_id(number))
        return True

    def clear(self, host: Host, gone: str) -> None:
        """Its definition there, and its disk."""
        host.machine.undefine(gone)
        self._writings.end(host.machine, gone)

    def remove(self, number: int, host: Host) -> None:
        """It is stopped and undefined, and is nowhere then."""
        self._does(number, f"removes vm{number} from {host.name}")
        if host.machine.vms[vm_id(number)].active:
            host.machine.stop(vm_id(number))
        if vm_id(number) in host.machine.vms:
            self.clear(host, vm_id(number))

    def _undefines(self) -> bool:
        return self._chance.random() < 0.5

    def start(self, number: int) -> bool:
        """Wherever it is defined, unless it is active somewhere, or on its way."""
        if any((vm := h.machine.vms.get(vm_id(number))) and vm.active for h in self._hosts()):
            return False
        if self._is_promoted(number):
            return False
        for host in self._world.hosts.values():
            if host.machine.powered and vm_id(number) in host.machine.vms:
                if not self._writings.is_current(host.machine, vm_id(number)):
                    continue
                if host.machine.keeps_off(vm_id(number)):
                    return False
                self._does(number, f"starts vm{number} on {host.name}")
                host.machine.start(vm_id(number))
                return True
        return self.create(number, self._chance.choice(list(self._world.hosts.values())))

    def _hosts(self) -> list[Host]:
        return list(self._world.hosts.values())

    def _active(self, number: int) -> Host | None:
        """The one host where it is; None if there is none, or if it is on its way."""
        found = [
            h
            for h in self._world.hosts.values()
            if (vm := h.machine.vms.get(vm_id(number))) and vm.active
        ]
        return found[0] if len(found) == 1 and found[0].machine.powered else None

    def _does(self, number: int, what: str) -> None:
        self._world.truth.touched[vm_id(number)] = self._world.loop.time()
        self._world.journal.say("person", what)
