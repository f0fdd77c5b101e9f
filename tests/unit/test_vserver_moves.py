"""The steps of a move on one host: each may be done twice, and an older order never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.model.operation import HostedState, MoveStep
from common.model.profile import Profile
from common.model.vm import VmState
from common.model.wanted import PortState, WantedVm
from tests.unit.agent_bench import BLUE, Bench, bench, settle, until
from tests.unit.agent_values import MAC, RATED, VM, order, wanted
from vserver.core.taps import incoming_device

COMING = incoming_device(MAC)
SLOW = 128 * 1024 * 1024 / 2.0  # a copy of two seconds


def at_destination(step: MoveStep, epoch: int = 1, profile: Profile = RATED) -> WantedVm:
    owned = step is MoveStep.START
    ports = PortState.OPEN if owned else PortState.CLOSED
    return wanted(owned=owned, ports=ports, step=step, epoch=epoch, profile=profile)


async def arrive(b: Bench) -> None:
    """The peer copies the VM here; it waits to be started."""
    b.create(here=False)
    await b.peer.migrate(VM, b.hypervisor.migration_uri, {MAC: COMING}, lambda _: None)


async def prepared(b: Bench) -> None:
    b.center.tell(BLUE, at_destination(MoveStep.PREPARE))
    b.center.synced()
    assert (await b.outcome(MoveStep.PREPARE)).ok


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


# ---- COPY, ABORT, CLEAN ----


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
    async with bench(bytes_per_second=SLOW * 4) as b:
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
        await until(lambda: VM not in b.peer.vms, within=1.0)
        assert b.hypervisor.vms[VM].state is VmState.RUNNING


async def test_a_copy_goes_on_while_the_stream_is_cut_and_is_told_afterwards() -> None:
    async with bench(bytes_per_second=SLOW * 4) as b:
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
