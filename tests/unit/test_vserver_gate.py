"""What an agent with a gate holds for a move that is over: it gives that up, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.model.operation import MoveKind, MoveStep
from common.model.vm import Resources, VmState
from common.model.wanted import PortState, WantedVm
from tests.unit.agent_bench import BLUE, Bench, until
from tests.unit.agent_values import MAC, OTHER, RATED, VM, vm, wanted
from vserver.hypervisor.libvirt.gate.gate import Gate
from vserver.hypervisor.libvirt.held import Held, Seen
from vserver.hypervisor.libvirt.notes import NoteFiles
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.hypervisor.memory_host import refused
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.metadata import AttachmentRules

WITHIN = 15.0


def ordered(
    step: MoveStep, kind: MoveKind = MoveKind.LIVE, epoch: int = 1, *, owned: bool = False
) -> WantedVm:
    ports = PortState.OPEN if owned else PortState.CLOSED
    told = wanted(owned=owned, ports=ports, step=step, epoch=epoch, profile=RATED)
    assert told.move is not None
    return replace(told, move=replace(told.move, kind=kind))


class GatedHost(MemoryHypervisor):
    """No guest starts without a question to its gate, and nothing is told of it meanwhile, as with
    libvirt. It is its own `held.Hands` and `held.Copies`; nothing leaves it here."""

    def __init__(self, fleet: MemoryFleet, notes: Path) -> None:
        super().__init__(fleet, "host-1", Resources(64, 65536), AttachmentRules())
        self._notes = notes
        self.busy = asyncio.Lock()
        self.boot()

    def boot(self) -> None:
        self.gate = Gate(NoteFiles(self._notes), SystemClock())
        self._held = Held(self, SystemClock(), self, self.gate)

    async def open(self) -> None:
        await super().open()
        await self.gate.load()
        await self._held.look_again()

    # ---- the port ----

    async def hold(self, vm_id: str) -> bool:
        return await self._held.expect(vm_id)

    def kept(self) -> Collection[str]:
        return self._held.kept()

    async def give_up(self, vm_id: str) -> None:
        await self._held.give_up(vm_id)

    async def power_on(self, vm_id: str) -> None:
        async with self.busy:
            if why := await self.gate.asked(vm_id):
                raise refused(why)
            await super().power_on(vm_id)

    # ---- Hands and Copies ----

    async def look(self, vm_id: str) -> Seen:
        async with self.busy:
            there = self.vms.get(vm_id)
        if there is None or not there.active:
            return Seen.GONE
        return Seen.RUNS if there.state is VmState.RUNNING else Seen.ARRIVING

    async def settle(self, vm_id: str) -> None: ...

    async def end(self, vm_id: str) -> None: ...

    def is_under_way(self, vm_id: str) -> bool:
        return False

    async def is_proven(self, vm_id: str) -> bool:
        return False

    async def buried(self, vm_id: str) -> None: ...


class GatedBench(Bench):
    hypervisor: GatedHost

    def __init__(self, notes: Path) -> None:
        super().__init__(CopySpeed(1e10, 10, 0.005))
        fleet = MemoryFleet(self.clock, CopySpeed(1e10, 10, 0.005))
        self.hypervisor, self.peer = GatedHost(fleet, notes), fleet.host("host-2")
        fleet.hosts[self.hypervisor.migration_uri] = self.hypervisor
        self.agent = self._agent()

    def holds(self) -> bool:
        return VM in self.hypervisor.kept()

    async def looked_over(self) -> None:
        """Once more since now: what nobody has ever spoken of is given up then."""
        await self.hypervisor.hold(OTHER)
        await until(lambda: OTHER not in self.hypervisor.kept(), WITHIN)

    async def restart(self) -> None:
        await self.stop()
        self.hypervisor.boot()
        await self.start()

    async def prepare(self) -> None:
        self.center.tell(BLUE, ordered(MoveStep.PREPARE))
        self.center.synced()
        assert (await self.outcome(MoveStep.PREPARE)).gated and self.holds()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[GatedBench]:
    made = GatedBench(tmp_path / "gate")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_a_move_that_is_called_off_before_its_copy_keeps_nothing(
    bench: GatedBench, tmp_path: Path
) -> None:
    await bench.prepare()
    bench.center.gone(VM)
    await until(lambda: not bench.holds(), WITHIN)
    assert await bench.hypervisor.gate.asked(VM) == "", "anybody may start it here"
    await until(lambda: not list((tmp_path / "gate").iterdir()))


async def test_an_agent_that_was_away_when_its_move_ended_keeps_nothing(bench: GatedBench) -> None:
    await bench.prepare()
    await bench.restart()
    await bench.hypervisor.hold(OTHER)
    assert bench.holds(), "nobody has said yet what is wanted"
    bench.center.synced()
    await until(lambda: not bench.hypervisor.kept(), WITHIN)


async def test_what_is_to_arrive_stays_held(bench: GatedBench) -> None:
    await bench.prepare()
    await bench.looked_over()
    assert bench.holds()


async def test_what_is_here_stays_held_whoever_has_forgotten_it(bench: GatedBench) -> None:
    """A copy that its move has left: it runs as little as before."""
    await bench.prepare()
    bench.create(here=False)
    await bench.peer.migrate(VM, bench.hypervisor.migration_uri, {MAC: "vnet7"}, lambda _: None)
    bench.center.gone(VM)
    await bench.looked_over()
    assert bench.holds() and bench.hypervisor.vms[VM].state is VmState.INCOMING


async def test_what_is_lost_stays_held(bench: GatedBench) -> None:
    await bench.prepare()
    lost = wanted(epoch=2, ports=PortState.CLOSED)
    bench.center.tell(replace(lost, closed_reason="NEEDS_FENCE"))
    await bench.looked_over()
    assert bench.holds()
    bench.center.tell(wanted(epoch=3))  # a person has decided that it is ours
    await bench.looked_over()
    assert not bench.holds()


async def test_the_ledgers_word_starts_what_was_to_arrive_before(bench: GatedBench) -> None:
    """It came here in another way in the end: off."""
    await bench.prepare()
    bench.hypervisor.create(vm(), started=False)
    start = ordered(MoveStep.START, MoveKind.RESTART, epoch=2, owned=True)
    bench.center.tell(start)
    assert (await bench.outcome(MoveStep.START)).ok
    assert bench.hypervisor.vms[VM].state is VmState.RUNNING


async def test_a_source_whose_guest_ended_while_it_was_held_may_start_it_again(
    bench: GatedBench,
) -> None:
    bench.create()
    bench.center.tell(BLUE, wanted(profile=RATED))
    bench.center.synced()
    await bench.hypervisor.gate.arm(VM)
    await bench.hypervisor.gate.asked(VM)
    assert bench.hypervisor.gate.shut(VM), "it stands still"
    bench.hypervisor.vms[VM].state = VmState.PAUSED
    await bench.looked_over()
    assert bench.holds(), "with its memory"
    bench.hypervisor.stop(VM)
    await bench.looked_over()
    assert not bench.holds()


async def test_a_move_that_begins_while_we_look_is_expected(
    bench: GatedBench, tmp_path: Path
) -> None:
    await bench.prepare()
    async with bench.hypervisor.busy:
        giving_up = asyncio.ensure_future(bench.hypervisor.give_up(VM))
        await asyncio.sleep(0)
        expecting = asyncio.ensure_future(bench.hypervisor.hold(VM))
        await asyncio.sleep(0)
    await giving_up
    assert await expecting and bench.holds()
    assert [file.name for file in (tmp_path / "gate").iterdir()] == [VM]
