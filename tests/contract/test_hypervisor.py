"""What every hypervisor adaptor must do (port.py): `memory`, `libvirt` on real hosts, `qemu`."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import Reason, Refusal
from common.model.operation import HostedState, MoveKind, Progress
from common.model.vm import Interface, VmState
from tests.contract.hypervisor_bench import TAP, Bench, Machine, event, until
from tests.contract.hypervisor_kinds import (
    bench,
    copied,
    copying,
    kept,
    labs,
    runs_here_only,
    started,
    state,
)
from vserver.hypervisor.port import CopyTerms

__all__ = ["bench", "kept", "labs"]  # fixtures
pytestmark = pytest.mark.timeout(180)


async def test_a_vm_made_by_hand_is_listed_with_what_its_metadata_says(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    [found] = [h for h in await bench.source.list() if h.vm.vm_id == machine.vm_id]
    assert (found.vm.name, found.vm.tenant, found.vm.group) == (machine.name, "acme", "web")
    assert found.vm.interfaces == (Interface(machine.mac, ("10.1.0.5",), "blue", 1001),)
    assert (found.vm.resources.vcpus, found.vm.resources.memory_mib) == (1, 128)
    assert (found.state, found.problem) == (VmState.RUNNING, "")
    [tap] = found.taps
    assert (tap.mac, tap.bridge) == (machine.mac, "br-1001")
    assert tap.device


async def test_broken_metadata_is_a_problem_and_no_failure(bench: Bench) -> None:
    machine = Machine(vni="99999999")
    await started(bench, machine)
    found = await bench.source.get(machine.vm_id)
    assert found is not None
    assert not found.vm.tenant
    assert "vni" in found.problem
    assert machine.mac in found.problem


async def test_what_is_done_by_hand_is_told_as_an_event(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    await event(bench.source, machine.vm_id)
    for action, becomes in (
        ("start", VmState.RUNNING),
        ("pause", VmState.PAUSED),
        ("stop", VmState.SHUT_OFF),
        ("undefine", None),
    ):
        await bench.by_hand(action, machine.vm_id)
        await event(bench.source, machine.vm_id)
        assert await state(bench.source, machine.vm_id) is becomes


async def test_hosted_is_absent_only_if_nothing_runs(bench: Bench) -> None:
    machine = Machine()
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    await bench.create(machine, started=False)
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    for action in ("start", "pause"):
        await bench.by_hand(action, machine.vm_id)
        assert await bench.source.hosted(machine.vm_id) is HostedState.RUNNING


async def test_a_vm_that_is_off_has_no_taps_by_name(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    found = await bench.source.get(machine.vm_id)
    assert found is not None
    assert found.state is VmState.SHUT_OFF
    assert [tap.device for tap in found.taps] == [""]


async def test_facts_and_usage_are_plausible(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    facts = await bench.source.facts()
    assert facts.hypervisor == bench.kind
    assert facts.version
    assert facts.capacity.vcpus > 0
    assert facts.capacity.memory_mib > 0
    await bench.source.usage()
    host, vms = await bench.source.usage()
    assert 0 < host.memory_free_mib <= host.memory_total_mib
    assert 0 <= host.cpu_percent <= 100
    assert vms[machine.vm_id].memory_used_mib > 0
    assert vms[machine.vm_id].cpu_percent >= 0


async def test_a_copy_waits_at_the_destination_with_the_tap_as_asked(bench: Bench) -> None:
    machine, seen = Machine(), list[Progress]()
    await started(bench, machine)
    await bench.destination.make_way(machine.vm_id)
    result = await bench.source.migrate(
        machine.vm_id, bench.destination_uri, machine.devices, seen.append
    )
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    assert await bench.source.get(machine.vm_id) is None
    assert machine.vm_id not in [hosted.vm.vm_id for hosted in await bench.source.list()]
    arrived = await bench.destination.get(machine.vm_id)
    assert arrived is not None
    assert (arrived.state, arrived.vm.tenant) == (VmState.INCOMING, "acme")
    assert [tap.device for tap in arrived.taps] == [TAP]
    assert await bench.destination.hosted(machine.vm_id) is HostedState.RUNNING
    result = await bench.source.last_figures(machine.vm_id) or result
    assert result.bytes > 0
    assert result.downtime_ms > 0
    if seen or bench.kind != "libvirt":  # there it may be over before the first look at it
        assert seen[-1].bytes_total > 0


async def test_resume_runs_what_arrived_and_again_is_no_error(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await copied(bench, machine)
    for _ in range(2):
        await bench.destination.resume(machine.vm_id)
        assert await state(bench.destination, machine.vm_id) is VmState.RUNNING


async def test_what_arrived_is_known_as_such_by_the_next_agent(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await copied(bench, machine)
    await bench.restart_agent()
    assert await state(bench.destination, machine.vm_id) is VmState.INCOMING


async def test_a_vm_that_has_run_here_is_never_taken_for_incoming(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await copied(bench, machine)
    await bench.destination.resume(machine.vm_id)
    await bench.by_hand("pause", machine.vm_id, there=True)
    assert await state(bench.destination, machine.vm_id) is VmState.PAUSED
    with pytest.raises(Refusal):
        await bench.destination.discard(machine.vm_id)


async def test_a_vm_may_go_and_come_back(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await copied(bench, machine)
    await bench.destination.resume(machine.vm_id)
    await bench.by_hand("stop", machine.vm_id, there=True)
    await bench.destination.discard(machine.vm_id)
    await bench.source.make_way(machine.vm_id)  # waits until what had left is cleared away
    await bench.create(machine)
    await until(bench.source, machine.vm_id, lambda vm: vm is not None)
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING


async def test_an_aborted_copy_leaves_the_vm_running_here(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine)
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal) as refused:
        await copy
    assert refused.value.reason is Reason.HYPERVISOR_FAILED
    await runs_here_only(bench, machine.vm_id)
    await bench.source.abort(machine.vm_id)  # nothing to stop is no error


async def test_a_cancelled_copy_has_ended_when_cancellation_comes_back(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine)
    copy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copy
    await runs_here_only(bench, machine.vm_id)


async def test_while_memory_arrives_the_vm_is_incoming_and_cannot_be_resumed(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine)
    assert await state(bench.destination, machine.vm_id) is VmState.INCOMING
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING
    with pytest.raises(Refusal):
        await bench.destination.resume(machine.vm_id)
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal):
        await copy


async def test_a_copy_discarded_at_the_destination_fails_and_the_vm_runs_on(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine)
    await bench.destination.discard(machine.vm_id)
    with pytest.raises(Refusal):
        await copy
    await runs_here_only(bench, machine.vm_id)


async def test_a_copy_to_nowhere_fails_and_the_vm_runs_on(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    with pytest.raises(Refusal) as refused:
        await bench.source.migrate(
            machine.vm_id, bench.unreachable_uri, machine.devices, lambda _: None
        )
    assert refused.value.reason is Reason.HYPERVISOR_FAILED
    await runs_here_only(bench, machine.vm_id)


async def test_only_a_running_vm_is_copied(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    with pytest.raises(Refusal):
        await copied(bench, machine)


async def test_a_suspended_guest_is_copied_and_runs_on_over_there(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await bench.destination.make_way(machine.vm_id)
    result = await bench.source.migrate(
        machine.vm_id,
        bench.destination_uri,
        machine.devices,
        lambda _: None,
        CopyTerms(MoveKind.SUSPEND),
    )
    assert result.downtime_ms > 0
    assert await bench.source.hosted(machine.vm_id) is HostedState.ABSENT
    assert await bench.source.get(machine.vm_id) is None
    assert await state(bench.destination, machine.vm_id) is VmState.INCOMING
    await bench.destination.resume(machine.vm_id)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING


async def test_a_suspended_guest_stands_still_and_runs_on_if_its_copy_fails(bench: Bench) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine, MoveKind.SUSPEND)
    assert await state(bench.source, machine.vm_id) is VmState.PAUSED
    await bench.source.abort(machine.vm_id)
    with pytest.raises(Refusal):
        await copy
    await runs_here_only(bench, machine.vm_id)


async def test_a_suspended_guest_runs_on_when_the_destination_throws_its_copy_away(
    bench: Bench,
) -> None:
    machine = Machine(memory_mib=1024)
    copy = await copying(bench, machine, MoveKind.SUSPEND)
    await bench.destination.discard(machine.vm_id)
    with pytest.raises(Refusal):
        await copy
    await runs_here_only(bench, machine.vm_id)


async def test_a_vm_that_is_off_is_handed_over_and_can_be_started_there(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    await bench.destination.make_way(machine.vm_id)
    assert await bench.source.keeps(machine.vm_id)
    assert not await bench.destination.keeps(machine.vm_id)
    await bench.source.hand_over(machine.vm_id, bench.destination_uri)
    assert not await bench.source.keeps(machine.vm_id)
    assert await bench.source.get(machine.vm_id) is None
    given = await bench.destination.get(machine.vm_id)
    assert given is not None
    assert (given.state, given.vm.tenant, given.vm.name) == (VmState.SHUT_OFF, "acme", machine.name)
    assert await bench.destination.hosted(machine.vm_id) is HostedState.ABSENT
    assert await bench.destination.keeps(machine.vm_id)
    for _ in range(2):  # on already is no error
        await bench.destination.power_on(machine.vm_id)
        assert await state(bench.destination, machine.vm_id) is VmState.RUNNING


async def test_a_vm_that_is_handed_over_to_nowhere_stays(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    with pytest.raises(Refusal) as refused:
        await bench.source.hand_over(machine.vm_id, bench.unreachable_uri)
    assert refused.value.reason is Reason.HYPERVISOR_FAILED
    assert await bench.source.keeps(machine.vm_id)
    assert await state(bench.source, machine.vm_id) is VmState.SHUT_OFF


async def test_a_vm_that_is_on_is_not_handed_over(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await bench.destination.make_way(machine.vm_id)
    with pytest.raises(Refusal):
        await bench.source.hand_over(machine.vm_id, bench.destination_uri)
    await runs_here_only(bench, machine.vm_id)


async def test_what_was_handed_over_is_discarded_like_a_copy(bench: Bench) -> None:
    """As when a move goes back; then nobody has it, and nobody starts it."""
    machine = Machine()
    await bench.create(machine, started=False)
    await bench.destination.make_way(machine.vm_id)
    await bench.source.hand_over(machine.vm_id, bench.destination_uri)
    await bench.destination.discard(machine.vm_id)
    assert not await bench.destination.keeps(machine.vm_id)
    with pytest.raises(Refusal):
        await bench.source.hand_over(machine.vm_id, bench.destination_uri)
    with pytest.raises(Refusal):
        await bench.destination.power_on(machine.vm_id)


async def test_a_power_button_is_pressed_whether_or_not_anybody_heeds_it(bench: Bench) -> None:
    machine = Machine()
    await bench.create(machine, started=False)
    await bench.source.ask_off(machine.vm_id)  # off already is no error
    await bench.by_hand("start", machine.vm_id)
    await bench.source.ask_off(machine.vm_id)
    assert await bench.source.keeps(machine.vm_id)


async def test_discard_removes_what_a_move_left(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await copied(bench, machine)
    for _ in range(2):  # the second time there is nothing, which is no error
        await bench.destination.discard(machine.vm_id)
        assert await bench.destination.get(machine.vm_id) is None


async def test_discard_removes_a_definition_but_no_vm_that_runs(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    with pytest.raises(Refusal):
        await bench.source.discard(machine.vm_id)
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING
    await bench.by_hand("stop", machine.vm_id)
    await bench.source.discard(machine.vm_id)
    assert await bench.source.get(machine.vm_id) is None


async def test_what_runs_or_has_been_copied_away_was_not_shut_down(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    assert not await bench.source.shut_down(machine.vm_id)
    await copied(bench, machine)
    assert not await bench.source.shut_down(machine.vm_id)
    assert not await bench.destination.shut_down(machine.vm_id)


async def test_a_move_by_hand_is_seen_on_both_sides(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)
    await bench.by_hand("migrate", machine.vm_id)
    await event(bench.destination, machine.vm_id)
    await until(bench.source, machine.vm_id, lambda vm: vm is None)
    assert await state(bench.destination, machine.vm_id) is VmState.RUNNING


async def test_vms_outlive_the_daemon_and_the_adaptor_finds_it_again(bench: Bench) -> None:
    machine = Machine()
    await started(bench, machine)

    async def while_it_is_gone() -> None:
        assert await bench.source.hosted(machine.vm_id) is HostedState.UNKNOWN
        with pytest.raises((Refusal, TimeoutError)):
            await bench.source.list()

    await bench.restart_daemon(while_it_is_gone)
    await event(bench.source, "")
    assert await state(bench.source, machine.vm_id) is VmState.RUNNING
    await bench.by_hand("pause", machine.vm_id)
    await event(bench.source, machine.vm_id)
    assert await state(bench.source, machine.vm_id) is VmState.PAUSED
