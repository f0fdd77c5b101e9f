"""Hosts whose agents are their libvirtds' lock managers (docs/gate.md): the real gate, asked by a
simulated libvirt.

No guest's CPUs start for a copy without an answer of the agent's process, and it is told when they
have stopped. What is held so stands still, whatever becomes of the agent and of the copy.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from common.clock import Clock
from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, Progress
from common.model.vm import VmState
from deploy.simulation.adaptors import HypervisorWay
from deploy.simulation.loop import Process
from deploy.simulation.machines import Machine
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.held import Held, Seen
from vserver.hypervisor.libvirt.notes import Role
from vserver.hypervisor.libvirt.waiting import first
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms, HostedVm

_STILL = (VmState.RUNNING, VmState.PAUSED)
_ASK_AGAIN = 0.5


class Notes:
    """`gate.Notes` of one machine."""

    def __init__(self, chance: random.Random) -> None:
        self.kept: dict[str, Role] = {}
        self._chance = chance

    async def read(self) -> dict[str, Role]:
        return dict(self.kept)

    async def write(self, vm_id: str, role: Role) -> None:
        await asyncio.sleep(self._chance.uniform(0.0001, 0.001))
        self.kept[vm_id] = role

    async def remove(self, vm_id: str) -> None:
        await asyncio.sleep(self._chance.uniform(0.0001, 0.001))
        self.kept.pop(vm_id, None)

    def power_cut(self) -> None:
        self.kept = {i: role for i, role in self.kept.items() if role is Role.DESTINATION}


class GatedWay(HypervisorWay):
    """The adaptor: what libvirt's does about the gate, and else the way to the machine."""

    def __init__(
        self, machine: Machine, chance: random.Random, process: Process, clock: Clock, notes: Notes
    ) -> None:
        super().__init__(machine, chance)
        self.process = process
        self.gate = Gate(notes, clock)
        self._clock = clock
        self._held = Held(_Hands(self), clock, self, self.gate)
        self._copies: dict[str, asyncio.Task[Copied]] = {}
        self._stopped: dict[str, asyncio.Event] = {}
        self._waiting: dict[asyncio.Future[str], None] = {}
        process.mourners.append(self._hang_up)

    async def open(self) -> None:
        await self.gate.load()
        self._machine.lock_manager = self
        await self.call("open", ())
        await self._held.look_again()

    async def close(self) -> None:
        self._hang_up()
        await self._held.close()
        await self.call("close", ())

    # ---- libvirt's side ----

    async def asked(self, vm_id: str) -> str:
        """By libvirt, which waits for the answer, or for the end of the connection."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = None
        self.process.spawn(self._answer(vm_id, answer))
        try:
            return await answer
        finally:
            del self._waiting[answer]

    async def _answer(self, vm_id: str, answer: asyncio.Future[str]) -> None:
        why = await self.gate.asked(vm_id)
        if not answer.done():
            answer.set_result(why)

    def _hang_up(self) -> None:
        if self._machine.lock_manager is self:
            self._machine.lock_manager = None
        for answer in self._waiting:
            if not answer.done():
                answer.set_result("the lock manager is gone")

    def minds(self, vm_id: str) -> bool:
        return self.process.stopped or self._held.stands(vm_id)

    def die(self) -> None:
        self.process.kill()

    def stopped(self, vm_id: str) -> None:
        """libvirt's event: a guest stands still for its switch."""
        self.process.after(0.0, self._heard, vm_id)

    def _heard(self, vm_id: str) -> None:
        if told := self._stopped.get(vm_id):
            self.gate.shut(vm_id)
            told.set()

    # ---- copies from here ----

    def is_under_way(self, vm_id: str) -> bool:
        return vm_id in self._copies

    async def is_proven(self, vm_id: str) -> bool:
        copy = self._copies.get(vm_id)
        if copy is None:
            return False
        await asyncio.wait({copy})
        return copy.exception() is None

    async def buried(self, vm_id: str) -> None:
        while copy := self._copies.get(vm_id):
            await asyncio.wait({copy})
            await asyncio.sleep(0)

    async def migrate(
        self,
        vm_id: str,
        uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        if not terms.gated or terms.kind is not MoveKind.LIVE:
            args = (vm_id, uri, devices, progress, replace(terms, gated=False))
            return await self.call("migrate", args)  # type: ignore[no-any-return]
        await self.gate.arm(vm_id)
        told = self._stopped[vm_id] = asyncio.Event()
        call = self.call("migrate", (vm_id, uri, devices, progress, terms))
        copy = self._copies[vm_id] = asyncio.create_task(call)
        copy.add_done_callback(lambda _: self.process.spawn(self._bury(vm_id)))
        still = asyncio.create_task(told.wait())
        await asyncio.wait({copy, still}, return_when=asyncio.FIRST_COMPLETED)
        still.cancel()
        if self.gate.holds(vm_id):
            return Copied(0, 0.0, 0)
        return await asyncio.shield(copy)

    async def _bury(self, vm_id: str) -> None:
        """A source that is held after a copy that failed stays so, until somebody decides."""
        copy = self._copies[vm_id]
        if copy.exception() is None or not self.gate.holds(vm_id):
            await self.gate.forget(vm_id)
        del self._copies[vm_id], self._stopped[vm_id]

    async def abort(self, vm_id: str) -> None:
        while not self.gate.holds(vm_id):
            stopping = asyncio.ensure_future(self.call("abort", (vm_id,)))
            if await first(self._clock, _ASK_AGAIN, (stopping,)):
                await stopping
                return
            stopping.cancel()

    # ---- what the agent asks ----

    async def hosted(self, vm_id: str) -> HostedState:
        if self._held.is_leaving(vm_id):
            return HostedState.HELD
        said = await super().hosted(vm_id)
        has_back = said is HostedState.RUNNING and self._held.has_back(vm_id)
        return HostedState.HELD if has_back else said

    async def list(self) -> Sequence[HostedVm]:
        found: Sequence[HostedVm] = await self.call("list", ())
        return [self._shown(vm) for vm in found if not self._held.is_leaving(vm.vm.vm_id)]

    async def get(self, vm_id: str) -> HostedVm | None:
        if self._held.is_leaving(vm_id):
            return None
        found: HostedVm | None = await self.call("get", (vm_id,))
        return self._shown(found) if found is not None else None

    def _shown(self, found: HostedVm) -> HostedVm:
        held = self._held.stands(found.vm.vm_id) and found.state in _STILL
        return replace(found, state=VmState.INCOMING) if held else found

    async def hold(self, vm_id: str) -> bool:
        return await self._held.expect(vm_id)

    def kept(self) -> Collection[str]:
        return self._held.kept()

    async def give_up(self, vm_id: str) -> None:
        await self._held.give_up(vm_id)

    async def make_way(self, vm_id: str, disks: Sequence[Disk] = ()) -> None:
        await self.buried(vm_id)
        await self.call("make_way", (vm_id, disks))

    async def drop_disks(self, vm_id: str, disks: Sequence[Disk]) -> None:
        await self.buried(vm_id)
        await self.call("drop_disks", (vm_id, disks))

    async def resume(self, vm_id: str) -> None:
        await self.call("keep_disks", (vm_id,))
        if not await self._held.let_run(vm_id):
            await self.call("resume", (vm_id,))

    async def discard(self, vm_id: str) -> None:
        if await self._held.end(vm_id):
            await self.call("clear_disks", (vm_id,))
        else:
            await self.call("discard", (vm_id,))


class _Hands:
    """`held.Hands` of a machine."""

    def __init__(self, way: GatedWay) -> None:
        self._way = way

    async def look(self, vm_id: str) -> Seen:
        seen: Seen = await self._way.call("look", (vm_id,))
        return seen

    async def resume(self, vm_id: str) -> None:
        await self._way.call("resume", (vm_id,))

    async def settle(self, vm_id: str) -> None:
        """A copy leaves nothing here."""

    async def end(self, vm_id: str) -> None:
        await self._way.call("end", (vm_id,))

    async def discard(self, vm_id: str) -> None:
        await self._way.call("discard", (vm_id,))
