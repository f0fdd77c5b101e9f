"""What people want of several domains: moves between them, and to know where a VM is, anywhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import grpc.aio

from common.pb.vsignal.v1 import signaling_pb2, types_pb2
from deploy.simulation.authority import Authority
from deploy.simulation.center import Center
from deploy.simulation.people import CALL_S, IDENTITY, VNI, Operator, Person, vm_id
from deploy.simulation.world import World


class Traveller(Operator):
    """An operator at one vCenter, to whom every domain is the same."""

    def __init__(
        self, world: World, chance: random.Random, center: Center, authority: Authority
    ) -> None:
        super().__init__(world, chance, center)
        self._authority = authority
        self.domain = center.site.domain

    async def move_group_to(self, domain: str, home: str) -> str:
        """The members that `home` has."""
        group = signaling_pb2.RelocateRequest.GroupSubject(tenant="acme", group="web")
        request = signaling_pb2.RelocateRequest(group=group, destination=f"{domain}/")
        what = f"moves the group from {home} to {domain}"
        return await self._order(what, request, domain=home)

    async def ask(self, number: int) -> signaling_pb2.LookupResult | None:
        """Where is it? What the answer claims is held against what is true; None: no answer."""
        by_ip = types_pb2.VmKey(ip=types_pb2.VmKey.IpKey(vni=VNI, ip=f"10.1.0.{number}"))
        by_id = types_pb2.VmKey(vm_id=vm_id(number))
        begun = self._world.loop.time()
        request = signaling_pb2.LookupRequest(keys=[by_id, by_ip])
        call: Awaitable[signaling_pb2.LookupResponse] = self.directory.Lookup(
            request, metadata=IDENTITY, timeout=CALL_S
        )
        try:
            first, second = (await call).results
        except grpc.aio.AioRpcError as error:
            text = f"{self.domain} does not say where vm{number} is: {error.code().name}"
            self._world.journal.say("operator", text)
            return None
        for result in (first, second):
            self._authority.answered(self.domain, vm_id(number), begun, result)
        certainty = signaling_pb2.Certainty.Name(first.certainty)[10:].lower()
        place = f"on {first.authority}/{first.location.server_id}" if first.found else "nowhere"
        text = f"{self.domain} says: vm{number} is {place}, {certainty}"
        self._world.journal.say("operator", text)
        return first

    async def attend(self, operation_id: str) -> None:
        """What becomes of an order is cancelled, followed or waited for."""
        if not operation_id:
            return
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.uniform(0, 0.9))
            await self.cancel(operation_id)
        elif self._chance.random() < 0.5:
            await self.follow(operation_id)
        else:
            await self.wait(operation_id)


class Resident(Person):
    """Somebody with root on the hosts, who neither forgets a VM in one domain and begins it anew in
    another, nor moves one by hand: each domain is an authority of its own, and does not know which
    epochs a VM had, or where it is, in others. Both would show it as being in two places."""

    with_disks = frozenset()

    def _undefines(self) -> bool:
        return False

    def start(self, number: int) -> bool:
        defined = any(vm_id(number) in host.machine.vms for host in self._hosts())
        return defined and super().start(number)
