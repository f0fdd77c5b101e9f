"""The steps of a move where it comes from, and what becomes of orders and outcomes on one host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, MoveStep
from common.model.vm import VmState
from tests.unit.agent_bench import BLUE, Bench, bench, settle, until
from tests.unit.agent_moves import COMING, arrive, at_destination, prepared
from tests.unit.agent_values import RATED, VM, vm, wanted
from vserver.hypervisor.memory_disks import MemoryFile

SLOW = 128 * 1024 * 1024 / 20.0  # a copy of twenty seconds


async def source(b: Bench, step: MoveStep = MoveStep.COPY) -> None:
    if VM not in b.hypervisor.vms:
        b.create()
    b.center.tell(BLUE, wanted(profile=RATED, step=step))
    b.center.synced()


async def test_copy_leaves_the_vm_waiting_at_the_destination() -> None:
    async with bench() as b:
        await source(b)
        outcome = await b.outcome(MoveStep.COPY)
        assert outcome.ok and outcome.truth is HostedState.ABSENT
        assert outcome.bytes == 128 * 1024 * 1024 and outcome.downtime_ms == 5.0
        assert b.peer.vms[VM].state is VmState.INCOMING
        assert [tap.device for tap in b.peer.vms[VM].hosted().taps] == [COMING]
        await until(lambda: not b.ports)
        assert not b.center.deregistered, "the move speaks for the VM"


async def test_a_copy_tells_of_its_progress_but_not_too_often() -> None:
    async with bench(bytes_per_second=SLOW * 40) as b:
        await source(b)
        await b.outcome(MoveStep.COPY)
        assert 1 <= len(b.center.progress) <= 3


async def test_a_copy_that_fails_leaves_the_vm_running() -> None:
    async with bench() as b:
        b.hypervisor.fail_next_migration("no route to host")
        await source(b)
        outcome = await b.outcome(MoveStep.COPY)
        assert not outcome.ok and outcome.truth is HostedState.RUNNING
        assert outcome.failure is not None and "no route to host" in outcome.failure.message
        await until(lambda: b.open_ports() == {"vnet0"})
        await settle(0.7)
        assert VM not in b.peer.vms, "a failed copy is not repeated by itself"


async def test_a_guest_that_shuts_down_during_its_copy_is_still_this_hosts() -> None:
    async with bench(bytes_per_second=SLOW) as b:
        await source(b)
        await until(lambda: VM in b.peer.vms)
        b.hypervisor.stop(VM)
        copied = await b.outcome(MoveStep.COPY)
        assert not copied.ok and copied.truth is HostedState.SHUT_OFF
        b.center.tell(wanted(profile=RATED, step=MoveStep.ABORT))
        aborted = await b.outcome(MoveStep.ABORT)
        assert aborted.ok and aborted.truth is HostedState.SHUT_OFF


async def test_abort_stops_the_copy() -> None:
    async with bench(bytes_per_second=SLOW) as b:
        await source(b)
        await until(lambda: VM in b.peer.vms)
        b.center.tell(wanted(profile=RATED, step=MoveStep.ABORT))
        outcome = await b.outcome(MoveStep.ABORT)
        assert outcome.ok and outcome.truth is HostedState.RUNNING
        assert VM not in b.peer.vms and b.hypervisor.vms[VM].state is VmState.RUNNING
        assert b.open_ports() == {"vnet0"}


async def test_abort_right_behind_the_copy_stops_it_too() -> None:
    async with bench(bytes_per_second=SLOW) as b:
        await source(b)
        b.center.tell(wanted(profile=RATED, step=MoveStep.ABORT))
        outcome = await b.outcome(MoveStep.ABORT)
        assert outcome.ok and outcome.truth is HostedState.RUNNING
        await settle()
        assert VM not in b.peer.vms


async def test_abort_of_a_vm_that_has_left_says_so() -> None:
    async with bench() as b:
        await source(b)
        await b.outcome(MoveStep.COPY)
        b.center.tell(wanted(profile=RATED, step=MoveStep.ABORT))
        outcome = await b.outcome(MoveStep.ABORT)
        assert not outcome.ok and outcome.truth is HostedState.ABSENT


@pytest.mark.parametrize("how", ["gone", "no order", "not named again"])
async def test_a_copy_whose_order_vanishes_is_stopped(how: str) -> None:
    async with bench(bytes_per_second=SLOW) as b:
        await source(b)
        await until(lambda: VM in b.peer.vms)
        if how == "gone":
            b.center.gone(VM)
        elif how == "no order":
            b.center.tell(wanted(profile=RATED))
        else:
            before = len(b.center.hellos)
            b.center.cut()
            await until(lambda: len(b.center.hellos) > before)
            assert VM in b.peer.vms, "a cut alone changes nothing"
            b.center.synced()
        await until(lambda: VM not in b.peer.vms)
        assert b.hypervisor.vms[VM].state is VmState.RUNNING


async def test_a_copy_goes_on_while_the_stream_is_cut_and_is_told_afterwards() -> None:
    async with bench(bytes_per_second=SLOW * 40) as b:
        await source(b)
        await until(lambda: VM in b.peer.vms)
        b.center.away = True
        b.center.cut()
        await until(lambda: b.peer.vms[VM].arrived)
        assert not b.center.outcomes
        b.center.away = False
        before = len(b.center.hellos)
        await until(lambda: len(b.center.hellos) > before)
        b.center.tell(BLUE, wanted(profile=RATED, step=MoveStep.COPY))
        b.center.synced()
        outcome = await b.outcome(MoveStep.COPY)
        assert outcome.ok and outcome.bytes == 128 * 1024 * 1024


async def test_an_outcome_is_told_again_on_each_new_stream_while_the_order_stands() -> None:
    async with bench() as b:
        await prepared(b)
        b.center.cut()
        await until(lambda: len(b.center.hellos) == 2)
        b.center.tell(BLUE, at_destination(MoveStep.PREPARE))
        b.center.synced()
        assert (await b.outcome(MoveStep.PREPARE)).ok


async def test_a_copy_after_a_restart_that_has_happened_already_is_told() -> None:
    async with bench() as b:
        b.center.tell(BLUE, wanted(profile=RATED, step=MoveStep.COPY))
        b.center.synced()
        outcome = await b.outcome(MoveStep.COPY)
        assert outcome.ok and outcome.truth is HostedState.ABSENT


async def test_the_last_figures_of_a_copy_are_told_after_all_is_clean() -> None:
    """No answer waits for them, nor does an order that is over call them off."""
    async with bench(figures_after=0.5) as b:
        await source(b)
        assert (await b.outcome(MoveStep.COPY)).downtime_ms == 0
        b.center.tell(wanted(profile=RATED, epoch=2, step=MoveStep.CLEAN))
        cleaned = await b.outcome(MoveStep.CLEAN)
        assert cleaned.ok and not cleaned.bytes
        b.center.tell(wanted(profile=RATED, epoch=2))
        told = await b.outcome(MoveStep.CLEAN)
        assert (told.operation_id, told.epoch) == (cleaned.operation_id, 2)
        assert told.ok and told.bytes == 128 * 1024 * 1024 and told.downtime_ms == 5.0


async def test_last_figures_are_repeated_with_an_order_that_still_stands() -> None:
    async with bench(figures_after=0.1) as b:
        await source(b)
        await b.outcome(MoveStep.COPY)
        b.center.tell(wanted(profile=RATED, epoch=2, step=MoveStep.CLEAN))
        assert not (await b.outcome(MoveStep.CLEAN)).bytes
        for _ in range(2):
            assert (await b.outcome(MoveStep.CLEAN)).bytes == 128 * 1024 * 1024


async def test_clean_forgets_an_arrived_copy_and_its_ports() -> None:
    async with bench() as b:
        await prepared(b)
        await arrive(b)
        b.center.tell(at_destination(MoveStep.CLEAN))
        outcome = await b.outcome(MoveStep.CLEAN)
        assert outcome.ok and outcome.truth is HostedState.ABSENT
        assert not b.hypervisor.vms and not b.ports


async def test_clean_never_touches_a_vm_that_runs() -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted(profile=RATED))
        b.center.synced()
        await until(lambda: b.open_ports() == {"vnet0"})
        b.center.tell(wanted(profile=RATED, step=MoveStep.CLEAN))
        outcome = await b.outcome(MoveStep.CLEAN)
        assert not outcome.ok and outcome.truth is HostedState.RUNNING
        assert outcome.failure is not None
        assert outcome.failure.reason == "RUNNING_IN_TWO_PLACES", "and says that it is no leftover"
        assert b.hypervisor.vms[VM].state is VmState.RUNNING and b.open_ports() == {"vnet0"}


async def test_nothing_is_done_before_the_first_synced() -> None:
    async with bench() as b:
        await arrive(b)
        b.center.tell(BLUE, at_destination(MoveStep.START, epoch=2))
        await settle()
        assert b.hypervisor.vms[VM].state is VmState.INCOMING and not b.ports
        b.center.synced()
        assert (await b.outcome(MoveStep.START)).ok


async def test_an_outcome_is_told_again_with_the_truth_of_now() -> None:
    """The vCenter may have heard it when it could write nothing down."""
    async with bench() as b:
        await prepared(b)
        assert (await b.outcome(MoveStep.PREPARE)).truth is HostedState.ABSENT
        b.create()
        assert (await b.outcome(MoveStep.PREPARE)).truth is HostedState.RUNNING


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("kind", [MoveKind.LIVE, MoveKind.COLD])
async def test_a_vm_is_not_parted_from_a_disk_that_nobody_knew_of(
    kind: MoveKind, listed: bool
) -> None:
    """A vCenter that has just started orders a move before it has heard of the VM's disks; so may
    the agent have started, while its hypervisor told it nothing."""
    own = Disk("root.raw", "raw", 1 << 20, local=True)
    async with bench() as b:
        b.hypervisor.disks.files[own.path] = b.peer.disks.files[own.path] = MemoryFile(own.bytes)
        b.hypervisor.create(vm(), disks=(own,), started=kind is MoveKind.LIVE)
        await until(lambda: VM in b.agent.guests.vms)
        if not listed:
            b.agent.guests.vms.clear()
        known = wanted(step=MoveStep.COPY)
        assert known.move is not None
        b.center.tell(BLUE, replace(known, move=replace(known.move, kind=kind)))
        b.center.synced()
        outcome = await b.outcome(MoveStep.COPY)
        assert outcome.failure is not None and outcome.failure.reason == "DISKS_STAY"
        assert VM in b.hypervisor.vms and VM not in b.peer.vms


async def test_a_standbys_whole_copy_is_whole_also_when_it_is_said_again() -> None:
    own = Disk("/images/root.raw", "raw", 1 << 20)
    async with bench() as b:
        b.hypervisor.disks.files[own.path] = MemoryFile(own.bytes)
        b.hypervisor.create(vm(), disks=(own,))
        assert b.peer.standbys is not None
        port = await b.peer.standbys.receive(VM, (own,))
        known = wanted(step=MoveStep.COPY)
        assert known.move is not None
        kind = MoveKind.STANDBY
        b.center.tell(
            BLUE, replace(known, move=replace(known.move, kind=kind, disks=(own,), port=port))
        )
        b.center.synced()
        for _ in ("at first", "again"):
            assert (await b.outcome(MoveStep.COPY)).ok


@pytest.mark.parametrize("started", [True, False])
async def test_what_is_here_again_after_its_copy_is_told(started: bool) -> None:
    async with bench() as b:
        b.create()
        b.center.tell(BLUE, wanted(step=MoveStep.COPY))
        b.center.synced()
        assert (await b.outcome(MoveStep.COPY)).ok
        b.hypervisor.create(vm(), started=started)
        outcome = await b.outcome(MoveStep.COPY)
        while outcome.ok:
            outcome = await b.outcome(MoveStep.COPY)
        assert outcome.truth is (HostedState.RUNNING if started else HostedState.SHUT_OFF)
