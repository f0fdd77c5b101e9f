"""An operator who keeps standbys, and falls back on them when a host is lost."""

from __future__ import annotations

import asyncio

from common.model.vm import VmRecord
from common.pb.vsignal.v1 import operations_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2
from deploy.simulation.journal import short
from deploy.simulation.people import CALL_S, IDENTITY, Operator, Person, vm_id
from deploy.simulation.world import Host, World

SILENT_WITHIN_S = 25.0  # a lease, and what else may be wrong meanwhile
LATE_S = 14.0  # what was said may be heard once more so much later


class Failover:
    """Whose word is true: who is said to be off is, for as long as that could be believed."""

    def __init__(self, world: World, operator: Operator, person: Person) -> None:
        self._world = world
        self._operator = operator
        self._person = person
        self._lost = False

    async def keep(self, number: int, near: Host) -> None:
        name, standby = near.name, True
        request = signaling_pb2.ReplicateRequest(vm_id=vm_id(number), near=name, standby=standby)
        call = self._operator.signaling.Replicate(request, metadata=IDENTITY, timeout=CALL_S)
        await self._operator.say(f"wants a standby of vm{number} near {name}", call)

    async def end(self, number: int) -> None:
        standby = self._world.center.laws.standby(vm_id(number))
        if standby is not None:
            await self._operator.cancel(standby.operation_id)

    async def promote(self, number: int) -> bool:
        """Nobody starts it by hand while it could be started by this."""
        self._world.truth.promoting[vm_id(number)] = self._world.loop.time() + CALL_S + LATE_S
        request = pb.PromoteRequest(vm_id=vm_id(number))
        call = self._operator.operations.Promote(request, metadata=IDENTITY, timeout=CALL_S)
        return await self._operator.say(f"promotes vm{number}", call) is not None

    async def lose(self) -> None:
        """A host burns; what it had comes back where there is a copy. One a story."""
        begun = self._world.center.laws.standbys()
        if self._lost or not begun:
            return
        host = self._world.hosts[begun[0].source]
        self._lost = True
        self._world.journal.say("fate", f"{host.name} burns")
        self._world.unplug(host)
        if await self._fenced(host):
            for standby in self._world.center.laws.standbys():
                if standby.source == host.name:
                    await self.promote(int(standby.vm_id[-4:]))
        await asyncio.sleep(LATE_S)
        self._world.journal.say("fate", f"{host.name} is repaired")
        self._world.plug(host)
        self._clear_away(host)

    async def _fenced(self, host: Host) -> bool:
        request = pb.FenceRequest(server_id=host.name, word="it burns")
        end = self._world.loop.time() + SILENT_WITHIN_S
        while self._world.loop.time() < end:
            await asyncio.sleep(2.0)
            call = self._operator.operations.Fence(request, metadata=IDENTITY, timeout=CALL_S)
            if await self._operator.say(f"says that {host.name} is off", call) is not None:
                return True
        return False

    def _clear_away(self, host: Host) -> None:
        """What is left there of guests that live elsewhere now."""
        records = self._world.center.laws.records
        for gone in sorted(host.machine.vms):
            record = records.get(f"vm/{gone}")
            left = isinstance(record, VmRecord) and record.location.server_id != host.name
            if left or not self._world.truth.writings.is_current(host.machine, gone):
                self._world.journal.say("person", f"clears {short(gone)} away from {host.name}")
                self._person.clear(host, gone)
