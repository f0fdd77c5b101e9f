"""The steps of a move where it goes to: each may be done twice, and an older order never."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from common.clock import SystemClock
from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, MoveStep
from common.model.profile import Profile
from common.model.vm import Resources, VmState
from common.model.wanted import PortState
from tests.unit.agent_bench import BLUE, Bench, bench, settle, until
from tests.unit.agent_moves import COMING, arrive, at_destination, prepared
from tests.unit.agent_values import RATED, VM, order, wanted
from vserver.hypervisor.memory import MemoryFleet, MemoryHypervisor
from vserver.hypervisor.memory_speed import CopySpeed
from vserver.hypervisor.memory_standby import MemoryStandbys
from vserver.hypervisor.metadata import AttachmentRules

# ---- PREPARE ----


async def test_prepare_puts_the_policy_in_force_before_the_tap_exists() -> None:
    async with bench() as b:
        b.center.tell(BLUE, at_destination(MoveStep.PREPARE))
        b.center.synced()
        outcome = await b.outcome(MoveStep.PREPARE)
        assert outcome.ok and outcome.policy_hash == RATED.digest()
        assert outcome.truth is HostedState.ABSENT
        assert {d: (p.is_open, p.profile) for d, p in b.ports.items()} == {COMING: (False, RATED)}
        assert set(b.kernel.networks) == {1001}


async def test_prepare_waits_for_the_network_to_be_told() -> None:
    async with bench() as b:
        b.center.tell(at_destination(MoveStep.PREPARE))
        b.center.synced()
        await settle()
        assert not b.center.outcomes
        b.center.tell(BLUE)
        assert (await b.outcome(MoveStep.PREPARE)).ok


async def test_prepare_refuses_what_the_host_cannot_enforce() -> None:
    async with bench() as b:
        b.center.tell(BLUE, at_destination(MoveStep.PREPARE, profile=Profile(vlan=7)))
        b.center.synced()
        outcome = await b.outcome(MoveStep.PREPARE)
        assert not outcome.ok and outcome.failure is not None
        assert outcome.failure.reason == "NOT_ENFORCEABLE" and "vlan" in outcome.failure.message
        assert not b.ports


async def test_prepare_refuses_a_profile_that_it_reads_differently() -> None:
    async with bench() as b:
        b.center.tell(BLUE, replace(at_destination(MoveStep.PREPARE), profile_hash="f" * 64))
        b.center.synced()
        outcome = await b.outcome(MoveStep.PREPARE)
        assert outcome.failure is not None and outcome.failure.reason == "NOT_ENFORCEABLE"


async def test_prepare_refuses_a_vm_that_runs_here() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, at_destination(MoveStep.PREPARE))
        b.center.synced()
        outcome = await b.outcome(MoveStep.PREPARE)
        assert not outcome.ok and outcome.truth is HostedState.RUNNING


@pytest.mark.parametrize("kind", [MoveKind.LIVE, MoveKind.COLD])
async def test_prepare_ends_a_standby_that_nobody_wants_any_more(kind: MoveKind) -> None:
    """This host was away when it was ended: what was taken for it is not what will come."""
    own = Disk("/images/root.raw", "raw", 1 << 20)
    async with bench() as b:
        assert b.hypervisor.standbys is not None
        await b.hypervisor.standbys.receive(VM, (own,))
        coming = at_destination(MoveStep.PREPARE)
        assert coming.move is not None
        b.center.tell(BLUE, replace(coming, move=replace(coming.move, kind=kind, disks=(own,))))
        b.center.synced()
        assert (await b.outcome(MoveStep.PREPARE)).ok
        assert not await b.hypervisor.standbys.kept() and not b.hypervisor.receiving


class SlowHost(MemoryHypervisor):
    """Takes its time to end the first standby, as a real one does that waits for a process."""

    def __init__(self, fleet: MemoryFleet) -> None:
        super().__init__(fleet, "host-1", Resources(64, 65536), AttachmentRules())
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    @property
    def standbys(self) -> MemoryStandbys:
        return SlowStandbys(self, SystemClock(), 1e10, self._peer)


class SlowStandbys(MemoryStandbys):
    host: SlowHost

    async def drop(self, vm_id: str) -> None:
        if not self.host.asked.is_set():
            self.host.asked.set()
            await self.host.goes_on.wait()
        await super().drop(vm_id)


class SlowBench(Bench):
    hypervisor: SlowHost

    def __init__(self) -> None:
        speed = CopySpeed(1e10, 10, 0.005)
        super().__init__(speed)
        self.hypervisor = SlowHost(MemoryFleet(self.clock, speed))
        self.agent = self._agent()


async def test_prepare_waits_for_the_end_of_what_is_being_ended() -> None:
    """What it made meanwhile would be taken for what is left."""
    own = Disk("/images/root.raw", "raw", 1 << 20)
    b = SlowBench()
    await b.hypervisor.standbys.receive(VM, (own,))
    await b.start()
    try:
        b.center.tell(BLUE)
        b.center.synced()
        await b.hypervisor.asked.wait()
        coming = at_destination(MoveStep.PREPARE)
        assert coming.move is not None
        b.center.tell(replace(coming, move=replace(coming.move, kind=MoveKind.COLD, disks=(own,))))
        await settle()
        assert not b.center.outcomes and VM not in b.hypervisor.taking
        b.hypervisor.goes_on.set()
        assert (await b.outcome(MoveStep.PREPARE)).ok
        assert own.path in b.hypervisor.disks.files and VM in b.hypervisor.taking
    finally:
        b.hypervisor.goes_on.set()
        await b.stop()


# ---- START ----


async def test_start_opens_the_port_and_runs_the_vm() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        assert b.open_ports() == set()
        b.center.tell(at_destination(MoveStep.START, epoch=2))
        outcome = await b.outcome(MoveStep.START)
        assert b.agent.guests.vms[VM].state is VmState.RUNNING, "not only on the next beat"
        assert outcome.ok and outcome.epoch == 2 and outcome.truth is HostedState.RUNNING
        assert outcome.policy_hash == RATED.digest()
        assert b.hypervisor.vms[VM].state is VmState.RUNNING and b.open_ports() == {COMING}


async def test_an_older_start_is_not_carried_out() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.center.tell(wanted(epoch=5, owned=False, ports=PortState.CLOSED))
        b.center.tell(at_destination(MoveStep.START, epoch=4))
        await settle()
        assert b.hypervisor.vms[VM].state is VmState.INCOMING and not b.open_ports()
        # a new epoch around an old order does not help it
        mixed = replace(at_destination(MoveStep.START, epoch=6), move=order(MoveStep.START, 4))
        b.center.tell(mixed)
        outcome = await b.outcome(MoveStep.START)
        assert outcome.failure is not None and outcome.failure.reason == "STALE_EPOCH"
        assert b.hypervisor.vms[VM].state is VmState.INCOMING


async def test_an_older_start_is_not_carried_out_after_a_restart_either() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.center.tell(wanted(epoch=5, owned=False, ports=PortState.CLOSED))
        await until(lambda: b.agent.epochs.seen(VM) == 5)
        await b.stop()
        await b.start()
        b.center.tell(BLUE, at_destination(MoveStep.START, epoch=4))
        b.center.synced()
        await settle()
        assert b.hypervisor.vms[VM].state is VmState.INCOMING and not b.open_ports()


async def test_start_of_a_copy_that_is_not_here_says_so() -> None:
    async with bench() as b:
        b.center.tell(BLUE, at_destination(MoveStep.START, epoch=2))
        b.center.synced()
        outcome = await b.outcome(MoveStep.START)
        assert not outcome.ok and outcome.truth is HostedState.ABSENT


async def test_start_is_tried_again_while_the_order_stands() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.hypervisor.disconnect()
        b.center.tell(at_destination(MoveStep.START, epoch=2))
        outcome = await b.outcome(MoveStep.START)
        assert not outcome.ok and outcome.truth is HostedState.UNKNOWN
        b.hypervisor.reconnect()
        await until(lambda: any(o.ok for o in b.center.outcomes))
        assert b.hypervisor.vms[VM].state is VmState.RUNNING


async def test_a_start_that_is_taken_back_is_not_tried_again() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.hypervisor.disconnect()
        b.center.tell(at_destination(MoveStep.START, epoch=2))
        assert not (await b.outcome(MoveStep.START)).ok
        b.center.gone(VM)
        b.hypervisor.reconnect()
        await settle(1.0)
        assert b.hypervisor.vms[VM].state is VmState.INCOMING


async def test_start_done_twice_is_done_once() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.center.tell(at_destination(MoveStep.START, epoch=2))
        assert (await b.outcome(MoveStep.START)).ok
        await b.stop()
        await b.start()
        b.center.tell(BLUE, at_destination(MoveStep.START, epoch=2))
        b.center.synced()
        assert (await b.outcome(MoveStep.START)).ok
