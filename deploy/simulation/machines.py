"""Hypervisor hosts whose guests outlive every process of ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from common.errors import Refusal
from common.model.disk import Disk
from common.model.operation import Progress
from common.model.vm import Resources, VmState
from deploy.simulation.copies import Copy, Fate, GatedCopy
from deploy.simulation.journal import Journal, short
from deploy.simulation.loop import Process
from deploy.simulation.writings import Files, Writings
from vserver.hypervisor.libvirt.held import Seen
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.hypervisor.memory_host import refused
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.memory_standby import MemoryStandbys
from vserver.hypervisor.metadata import AttachmentRules
from vserver.hypervisor.port import PLAIN, Copied, CopyTerms
from vserver.network.fabric import MemoryHost as FabricHost

CAPACITY = Resources(vcpus=64, memory_mib=65536)
GIVES_UP_AFTER_S = 4.0  # an adaptor that gets no answer


class Fleet(MemoryFleet):
    """All machines; `looked` is called after everything that happens to a guest, `adopted` when
    a standby has become one, and `started` when a hypervisor has let a copy run by itself."""

    def __init__(
        self,
        kernel: Process,
        clock: object,
        chance: random.Random,
        journal: Journal,
        looked: Callable[[Machine, str], None],
        adopted: Callable[[Machine, str], None],
        started: Callable[[Machine, str], None],
        writings: Writings,
    ) -> None:
        speed = CopySpeed(bytes_per_second=3e8, steps=6, downtime=0.02, figures_after=0.2)
        super().__init__(clock, speed)  # type: ignore[arg-type]
        self.kernel = kernel
        self.chance = chance
        self.journal = journal
        self.looked = looked
        self.writings = writings
        self.adopted = adopted
        self.started = started

    def machine(self, name: str, wires: FabricHost) -> Machine:
        made = Machine(self, name, wires)
        self.hosts[made.migration_uri] = made
        return made


class LockManager(Protocol):
    """A process on the machine, as its libvirtd sees it."""

    async def asked(self, vm_id: str) -> str: ...

    def minds(self, vm_id: str) -> bool: ...

    def stopped(self, vm_id: str) -> None: ...

    def die(self) -> None: ...


class Machine(MemoryHypervisor):
    """One host: its hypervisor, its guests, their taps. Agents come and go on it."""

    _fleet: Fleet

    def __init__(self, fleet: Fleet, name: str, wires: FabricHost) -> None:
        super().__init__(fleet, name, CAPACITY, AttachmentRules())
        self.wires = wires
        self.next_fate = Fate.GOOD
        self.hangs = False  # libvirtd takes requests, and does not answer
        self.waiting: list[Callable[[], object]] = []  # what it will do when it works again
        self._plugged: dict[str, set[str]] = {}
        self.disks = Files(lambda vm_id: fleet.writings.removes(self, vm_id))
        self.gated = False  # its libvirtd asks before any CPU starts
        self.lock_manager: LockManager | None = None  # who answers, if anybody does
        self.at_gate: set[str] = set()  # guests that stand still for their switch
        self.finishing: set[str] = set()  # guests that have arrived, and libvirt asks for them

    @property
    def standbys(self) -> Kept:
        fleet = self._fleet
        return Kept(self, fleet.clock, fleet.speed.bytes_per_second, self._peer)

    def adopted(self, vm_id: str) -> None:
        self._fleet.journal.say(self.name, f"the standby of {short(vm_id)} becomes a guest")
        self._fleet.adopted(self, vm_id)

    def changed(self, vm_id: str) -> None:
        super().changed(vm_id)
        if (seen := self.vms.get(vm_id)) is None or seen.state is not VmState.PAUSED:
            self.at_gate.discard(vm_id)
        self._wire(vm_id)
        vm = self.vms.get(vm_id)
        state = "gone" if vm is None else vm.state.value + (", arrived" if vm.arrived else "")
        self._fleet.journal.say(self.name, f"guest {short(vm_id)} {state}")
        self._fleet.looked(self, vm_id)

    def _wire(self, vm_id: str) -> None:
        """QEMU makes its taps, and they go with it."""
        vm = self.vms.get(vm_id)
        taps = {t.device for t in vm.described.taps if t.device} if vm and vm.active else set()
        before = self._plugged.get(vm_id, set())
        for device in sorted(before - taps):
            self.wires.unplug(device)
        for device in sorted(taps - before):
            self.wires.plug(device)
        self._plugged[vm_id] = taps

    def kill_guest(self, vm_id: str) -> None:
        """QEMU dies: what was defined is off, what only arrived is gone."""
        self.stop(vm_id)

    def crash(self) -> None:
        before = list(self.vms)
        super().crash()
        for vm_id in before:
            self.changed(vm_id)

    def hang(self) -> None:
        self._fleet.journal.say(self.name, "libvirtd hangs")
        self.hangs = True

    def recover(self) -> None:
        """It works again, beginning with what waits."""
        if self.hangs:
            self._fleet.journal.say(self.name, "libvirtd answers again")
            self.hangs = False
            waiting, self.waiting = self.waiting, []
            for act in waiting:
                act()

    def do_late(self, name: str, vm_id: str, act: Awaitable[object]) -> None:
        """A request whose caller has given up."""
        self._fleet.journal.say(self.name, f"does late: {name} {short(vm_id)}")
        self._fleet.kernel.spawn(self._quietly(act))

    async def _quietly(self, act: Awaitable[object]) -> None:
        with suppress(Refusal):
            await act

    # ---- the gate ----

    async def asks(self, vm_id: str) -> str:
        """Whether its CPUs may start, or what has become of them. "": go on."""
        if self.lock_manager is None:
            return "unable to connect to the lock manager"
        return await self.lock_manager.asked(vm_id)

    def keeps_off(self, vm_id: str) -> bool:
        """By hand it does not start here, as things are."""
        if vm_id in self.taking:
            return True
        return self.gated and (self.lock_manager is None or self.lock_manager.minds(vm_id))

    def tell_stopped(self, vm_id: str) -> None:
        if self.lock_manager is not None:
            self.lock_manager.stopped(vm_id)

    def kill_lock_manager(self) -> None:
        if self.lock_manager is not None:
            self.lock_manager.die()

    def started(self, vm_id: str) -> None:
        """By libvirt itself, at the end of a copy."""
        self.vms[vm_id].state, self.vms[vm_id].arrived = VmState.RUNNING, False
        self.changed(vm_id)
        self._fleet.started(self, vm_id)

    async def look(self, vm_id: str) -> Seen:
        self._ask()
        vm = self.vms.get(vm_id)
        if vm is None or not vm.active:
            return Seen.GONE
        if vm.state is VmState.RUNNING:
            return Seen.RUNS
        coming = vm.state is VmState.INCOMING and not vm.arrived
        return Seen.ARRIVING if coming or vm_id in self.finishing else Seen.LEFT_PAUSED

    async def end(self, vm_id: str) -> None:
        self._ask()
        if vm_id in self.vms:
            self.drop(vm_id)

    async def keep_disks(self, vm_id: str) -> None:
        self.disks.keep(vm_id)

    async def clear_disks(self, vm_id: str) -> None:
        self.disks.clear(vm_id)

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        port = await super().take(vm_id, disks)
        self._fleet.journal.say(self.name, f"takes the disks of {short(vm_id)}")
        return port

    async def settle(self, vm_id: str) -> None:
        if vm_id in self.taking:
            self._fleet.journal.say(self.name, f"has the disks of {short(vm_id)}")
        await super().settle(vm_id)

    async def power_on(self, vm_id: str) -> None:
        if self.gated and (why := await self.asks(vm_id)):
            raise refused(why)
        await super().power_on(vm_id)

    @property
    def copying(self) -> frozenset[str]:
        return frozenset(self._copies)

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = PLAIN,
    ) -> Copied:
        """The copy is the hypervisors' own: it goes on without the agent that asked for it."""
        self._ask()
        vm, there = self.vms.get(vm_id), self._fleet.hosts.get(destination_uri)
        if vm is None or vm.state is not VmState.RUNNING or vm_id in self._copies:
            raise refused(f"VM {vm_id} does not run here, or is being copied already")
        if not isinstance(there, Machine) or there is self or not there.reachable:
            raise refused(f"unable to connect to {destination_uri!r}")
        fate, self.next_fate = self.next_fate, Fate.GOOD
        kind = GatedCopy if self.gated and terms.gated else Copy
        copy = kind(self._fleet, vm, self, there, fate, terms)
        self._copies[vm_id] = copy
        self._fleet.journal.say(self.name, f"copies {short(vm_id)} to {there.name}: {fate.value}")
        going = self._fleet.kernel.spawn(self._carry(copy, vm_id, devices, progress))
        if fate is Fate.LEFT_ALONE:
            await asyncio.sleep(self._fleet.chance.uniform(0, 0.5))
            raise TimeoutError("no answer from libvirtd")
        result = await asyncio.shield(going)
        if isinstance(result, Exception):
            raise result
        return self._figured(vm_id, result, terms)

    async def _carry(
        self,
        copy: Copy,
        vm_id: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
    ) -> Copied | Exception:
        try:
            return await copy.run(devices, progress)
        except Exception as error:  # noqa: BLE001 - for whoever still listens
            self._fleet.journal.say(self.name, f"copy of {short(vm_id)} ended: {error}")
            return error
        finally:
            del self._copies[vm_id]
            copy.ended.set()


class Kept(MemoryStandbys):
    """The standbys of one machine."""

    async def adopt(self, vm_id: str, definition: bytes, disks: Sequence[Disk]) -> None:
        is_new = vm_id not in self.host.vms
        await super().adopt(vm_id, definition, disks)
        if is_new and isinstance(self.host, Machine):
            self.host.adopted(vm_id)
