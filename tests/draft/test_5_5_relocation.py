"""5.5, VM Relocation (A17, A3): a request to both vServers, and the profile names the new one."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import directory_pb2
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import (
    ABORT,
    ABSENT,
    CLEAN,
    COPY,
    PREPARE,
    RUNNING,
    START,
    UNKNOWN,
    Agent,
)
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM, Move
from tests.support.nouns import by_id, deny_ssh, vm, vm_id

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
ABORTING, LOST = operations.PHASE_ABORTING, operations.PHASE_LOST_NEEDS_FENCE
CLOSED, OPEN = session.PORT_STATE_CLOSED, session.PORT_STATE_OPEN
FAILED, CANCELLED = operations.PHASE_FAILED, operations.PHASE_CANCELLED


@pytest.fixture
async def move(lab: Lab) -> Move:
    return await Move.ready(lab)


def order(agent: Agent) -> int:
    """The step that the host is asked for now; 0 = none."""
    return agent.vms[VM].move.step if VM in agent.vms else 0


# ---- make before break ----


async def test_the_destination_prepares_first_with_the_profile_and_closed_ports(
    move: Move,
) -> None:
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    assert (wanted.ports, wanted.owned) == (CLOSED, False)
    assert wanted.profile == deny_ssh()
    assert wanted.vm == (await move.lab.record(VM)).vm
    assert wanted.move.peer_server == "host-1"
    assert wanted.move.peer_migration_uri == "memory://host-1"
    await move.destination.until(lambda: 100 in move.destination.networks)
    assert order(move.source) == 0, "the source is not touched"
    assert await move.owner() == ("host-1", 1)


async def test_the_copy_begins_only_after_the_hash_was_acknowledged(move: Move) -> None:
    await move.begin()
    prepared = await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    assert wanted.owned and wanted.ports == OPEN
    assert wanted.move.peer_server == "host-2"
    assert wanted.move.peer_migration_uri == "memory://host-2"
    assert (await move.get()).receipt.policy_hash_after == prepared.profile_hash


async def test_owner_and_epoch_change_in_one_revision(move: Move) -> None:
    watch = move.lab.operator.directory.Watch(directory_pb2.WatchRequest(vm_id=VM))
    await move.reach(SWITCHING)
    locations, operation_at, switched_at = set(), {}, 0
    async for event in watch:
        if event.HasField("operation"):
            operation_at[event.operation.phase] = event.revision
        if event.HasField("vm"):
            location = event.vm.location
            locations.add((location.server_id, location.epoch))
            if location.epoch == 2:
                switched_at = event.revision
                break
    watch.cancel()
    assert locations == {("host-1", 1), ("host-2", 2)}
    assert operation_at.get(SWITCHING, switched_at) == switched_at
    record = await move.lab.record(VM)
    assert record.revision == (await move.get()).revision == switched_at
    assert record.location.state == types.VM_STATE_INCOMING


async def test_the_destination_starts_only_after_the_switch(move: Move) -> None:
    await move.reach(COPYING)
    assert order(move.destination) == PREPARE
    await move.copy()
    wanted = await move.destination.until_ordered(VM, START)
    assert await move.owner() == ("host-2", 2)
    assert (wanted.owned, wanted.epoch, wanted.move.epoch) == (True, 2, 2)
    assert wanted.ports == OPEN
    await move.source.until(lambda: order(move.source) == 0)


async def test_the_source_forgets_it_only_after_it_runs_there(move: Move) -> None:
    await move.reach(SWITCHING)
    assert CLEAN not in [m.vm.move.step for m in move.source.heard]
    await move.start()
    wanted = await move.source.until_ordered(VM, CLEAN)
    assert (wanted.owned, wanted.ports) == (False, CLOSED)


async def test_what_is_left_is_a_receipt_and_a_vm_on_its_new_host(move: Move) -> None:
    hash_before = (await move.lab.record(VM)).profile_hash
    await move.begin()
    operation = await move.finish(PREPARING)
    assert operation.phase == SUCCEEDED
    assert [p.phase for p in operation.phases] == list(PHASES)
    assert (operation.epoch_before, operation.epoch_after) == (1, 2)
    assert operation.requested_by == "operator/alice"
    receipt = operation.receipt
    assert (receipt.downtime_ms, receipt.bytes, receipt.iterations) == (12.5, 1_000_000, 3)
    assert receipt.policy_hash_before == receipt.policy_hash_after == hash_before
    assert receipt.total_ms >= receipt.switch_ms >= 0
    record = await move.lab.record(VM)
    assert (record.location.server_id, record.operation_id) == ("host-2", "")
    assert record.location.state == types.VM_STATE_RUNNING
    await move.source.until_gone(VM)
    await move.destination.until(lambda: order(move.destination) == 0)
    assert move.destination.vms[VM].ports == OPEN
    answer = await move.lab.operator.directory.Lookup(pb.LookupRequest(keys=[by_id(1)]))
    assert answer.results[0].vtep_address == move.destination.server.vtep_address


async def test_third_hosts_forward_to_the_new_place(lab: Lab) -> None:
    move = await Move.ready(lab)
    third = await lab.agent("host-3")
    await third.register(vm(3))

    def behind() -> list[str]:
        own = third.server.vtep_address
        return [e for f in third.networks[100].forwards if (e := f.vtep_address) != own]

    await third.until(lambda: 100 in third.networks)
    assert behind() == [move.source.server.vtep_address]
    await move.reach(SWITCHING)
    await third.until(lambda: behind() == [move.destination.server.vtep_address])


async def test_progress_is_followed_and_is_the_sources_word_alone(move: Move) -> None:
    await move.reach(COPYING)
    follow = move.lab.operator.operations.Follow(
        operations.GetOperationRequest(operation_id=move.id)
    )
    await follow.read()
    for agent, done in ((move.destination, 9), (move.source, 5)):
        progress = operations.Progress(bytes_total=10, bytes_processed=done)
        await agent.say(progress=session.MoveProgress(operation_id=move.id, progress=progress))
        await move.lab.heard(agent)
    assert (await follow.read()).progress.bytes_processed == 5
    follow.cancel()
    assert (await move.finish(COPYING)).HasField("progress") is False


async def test_a_copy_that_went_well_while_the_vm_still_runs_there_is_waited_for(
    move: Move,
) -> None:
    await move.reach(COPYING)
    copying = await move.source.until_ordered(VM, COPY)
    with move.lab.nothing_changes():
        for truth in (RUNNING, UNKNOWN):
            await move.source.outcome(copying, truth)
        await move.lab.heard(move.source)


# ---- and back ----


async def test_a_failed_copy_leaves_the_vm_where_it_was(move: Move) -> None:
    await move.reach(COPYING)
    failure = operations.Failure(reason="HYPERVISOR_FAILED", message="no route")
    copying = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(copying, RUNNING, ok=False, failure=failure)
    await move.go_back()
    operation = await move.done()
    assert (operation.phase, operation.failure) == (FAILED, failure)
    assert operation.epoch_after == 0
    assert await move.owner() == ("host-1", 1)
    await move.destination.until_gone(VM)
    await move.source.until(lambda: order(move.source) == 0)
    assert move.source.vms[VM].ports == OPEN


async def test_a_destination_that_cannot_prepare_ends_it_before_the_copy(move: Move) -> None:
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    failure = operations.Failure(reason="NOT_ENFORCEABLE", message="no nftables")
    await move.destination.outcome(wanted, UNKNOWN, ok=False, failure=failure)
    await move.stay()  # the destination, which knows nothing, is not waited for
    assert ((await move.done()).phase, (await move.get()).failure) == (FAILED, failure)
    assert await move.owner() == ("host-1", 1)


@pytest.mark.parametrize("phase", [PREPARING, COPYING])
async def test_cancel_is_legal_until_the_switch(move: Move, phase: int) -> None:
    await move.reach(phase)
    assert (await move.cancel()).cancel_requested
    await (move.stay() if phase == PREPARING else move.go_back())
    operation = await move.done()
    assert (operation.phase, operation.failure.reason) == (CANCELLED, "CANCELLED_BY_USER")
    assert await move.owner() == ("host-1", 1)


async def test_a_copy_that_was_faster_than_the_cancel_goes_forward(move: Move) -> None:
    await move.reach(COPYING)
    copying = await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.source.outcome(copying, ABSENT)
    await move.start()
    await move.clean()
    operation = await move.done()
    assert operation.phase == SUCCEEDED and not operation.HasField("failure")
    assert await move.owner() == ("host-2", 2)


@pytest.mark.parametrize("phase", [SWITCHING, SETTLING])
async def test_later_it_is_too_late_to_cancel(move: Move, phase: int) -> None:
    await move.reach(phase)
    with move.lab.nothing_changes():
        assert (await refusal_of(move.cancel())).reason is Reason.TOO_LATE_TO_CANCEL


async def test_what_has_ended_cannot_be_cancelled(move: Move) -> None:
    await move.reach(SUCCEEDED)
    with move.lab.nothing_changes():
        assert (await refusal_of(move.cancel())).reason is Reason.ALREADY_DONE


async def test_going_back_needs_the_word_of_both(move: Move) -> None:
    await move.reach(COPYING)
    await move.cancel()
    aborting = await move.source.until_ordered(VM, ABORT)
    await move.source.outcome(aborting, UNKNOWN)
    await move.source.outcome(aborting, RUNNING, ok=False)
    await move.source.outcome(aborting, RUNNING, step=COPY, ok=False)
    await move.lab.heard(move.source)
    assert list((await move.get()).acks) == []
    assert order(move.destination) == PREPARE, "the copy may have been faster than the cancel"
    await move.source.outcome(aborting, RUNNING)
    cleaning = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(cleaning, RUNNING, ok=False)
    await move.destination.outcome(cleaning, ABSENT, step=PREPARE)
    await move.lab.heard(move.destination)
    operation = await move.get()
    assert (operation.phase, list(operation.acks)) == (ABORTING, ["host-1"])
    await move.destination.outcome(cleaning, ABSENT)
    assert (await move.done()).phase == CANCELLED


async def test_a_start_that_is_lost_needs_a_fence(move: Move) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    await move.destination.outcome(starting, ABSENT, ok=False)
    assert (await move.done()).phase == LOST
    location = (await move.lab.record(VM)).location
    assert (location.server_id, location.epoch) == ("host-2", 2)
    assert location.state == types.VM_STATE_LOST_NEEDS_FENCE
    (alert,) = await move.lab.alerts(Reason.NEEDS_FENCE.name)
    assert (alert.vm_id, alert.severity) == (VM, types.SEVERITY_CRITICAL)
    await move.destination.until(lambda: order(move.destination) == 0)
    assert move.destination.vms[VM].ports == CLOSED
    assert (await refusal_of(move.begin())).reason is Reason.NEEDS_FENCE


async def test_a_start_that_is_not_known_is_waited_for(move: Move) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with move.lab.nothing_changes():
        for truth in (UNKNOWN, RUNNING):
            await move.destination.outcome(starting, truth, ok=False)
        await move.lab.heard(move.destination)
    assert (await move.finish(SWITCHING)).phase == SUCCEEDED


async def test_a_source_that_still_runs_it_is_not_forgotten(move: Move) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    with move.lab.nothing_changes():
        await move.source.outcome(cleaning, RUNNING, ok=False)
        await move.lab.heard(move.source)
    assert (await move.finish(SETTLING)).phase == SUCCEEDED


async def test_a_vm_that_was_moved_back_by_hand_while_its_move_settles_is_its_hosts_again(
    move: Move,
) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    back = operations.Failure(reason="RUNNING_IN_TWO_PLACES", message="the VM runs here")
    await move.source.outcome(cleaning, RUNNING, ok=False, failure=back)
    done = await move.done()
    assert done.phase == SUCCEEDED and not done.HasField("failure"), "the move itself went well"
    assert await move.owner() == ("host-2", 2)
    move.destination.truth[VM], move.source.truth[VM] = ABSENT, RUNNING
    await move.source.register(vm(1))
    assert await move.owner() == ("host-1", 3)


# ---- late, repeated, foreign ----


async def test_repeated_outcomes_change_nothing(move: Move) -> None:
    await move.begin()
    prepared = await move.prepare()
    copied = await move.copy()
    started = await move.start()
    cleaned = await move.clean()
    await move.done()
    for late, truth in ((copied, ABSENT), (cleaned, ABSENT)):
        with move.lab.nothing_changes():
            await move.source.outcome(late, truth)
            await move.lab.heard(move.source)
    for late, truth in ((prepared, ABSENT), (started, RUNNING), (started, ABSENT)):
        with move.lab.nothing_changes():
            await move.destination.outcome(late, truth)
            await move.lab.heard(move.destination)


@pytest.mark.parametrize(
    "said",
    [
        {"epoch": 1},
        {"vm_id": vm_id(2)},
        {"operation_id": vm_id(3)},
        {"operation_id": "no uuid"},
        {"step": COPY, "truth": ABSENT},
        {"step": CLEAN, "truth": ABSENT, "epoch": 2},
        {"step": PREPARE},
        {"step": session.MOVE_STEP_UNSPECIFIED},
    ],
    ids=str,
)
async def test_an_outcome_that_nobody_asked_for_changes_nothing(
    move: Move, said: dict[str, object]
) -> None:
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with move.lab.nothing_changes():
        await move.destination.outcome(starting, **({"truth": RUNNING} | said))
        await move.lab.heard(move.destination)


async def test_a_third_host_has_no_word_in_it(lab: Lab) -> None:
    move = await Move.ready(lab)
    third = await lab.agent("host-3")
    await move.reach(SWITCHING)
    starting = await move.destination.until_ordered(VM, START)
    with lab.nothing_changes():
        for agent in (third, move.source):
            await agent.outcome(starting, ABSENT, ok=False)
            await agent.outcome(starting, RUNNING)
            await lab.heard(agent)


async def test_the_destination_cannot_speak_for_the_sources_cleaning(move: Move) -> None:
    await move.reach(SETTLING)
    cleaning = await move.source.until_ordered(VM, CLEAN)
    with move.lab.nothing_changes():
        await move.destination.outcome(cleaning, ABSENT)
        await move.lab.heard(move.destination)


async def test_an_earlier_move_has_no_word_in_a_later_one(move: Move) -> None:
    await move.reach(COPYING)
    late = await move.source.until_ordered(VM, COPY)
    await move.cancel()
    await move.go_back()
    await move.done()
    await move.reach(COPYING)
    with move.lab.nothing_changes():
        await move.source.outcome(late, ABSENT)
        await move.lab.heard(move.source)


# ---- meanwhile ----


async def test_register_and_deregister_leave_a_moving_vm_to_its_move(move: Move) -> None:
    await move.reach(SWITCHING)
    with move.lab.nothing_changes():
        arriving = await move.destination.register(vm(1))
        assert arriving.outcome == pb.REGISTER_OUTCOME_UNCHANGED
        gone = move.destination.deregister(VM, 2)
        assert (await refusal_of(gone)).reason is Reason.ALREADY_MOVING
        late = move.source.deregister(VM, 1)
        assert (await refusal_of(late)).reason is Reason.STALE_EPOCH


async def test_an_arriving_host_is_told_where_the_vm_comes_from(move: Move) -> None:
    await move.reach(COPYING)
    with move.lab.nothing_changes():
        reply = await move.destination.register(vm(1), types.VM_STATE_INCOMING)
    assert reply.outcome == pb.REGISTER_OUTCOME_INCOMING
    assert (reply.came_from.server_id, reply.came_from.epoch) == ("host-1", 1)


async def test_a_profile_that_changes_meanwhile_reaches_both_sides(lab: Lab) -> None:
    await lab.group(profile=deny_ssh())
    source, destination = await lab.agent("host-1"), await lab.agent("host-2")
    await source.register(vm(1, group="web"))
    move = Move(lab, source, destination)
    await move.reach(COPYING)
    await lab.group(profile=types.Profile(anti_spoofing=True))
    changed = (await lab.record(VM)).profile_hash
    for agent in (source, destination):
        await agent.until(lambda a=agent: a.vms[VM].profile_hash == changed)


async def test_a_peer_that_comes_back_elsewhere_is_told_to_the_other_side(move: Move) -> None:
    await move.reach(COPYING)
    await move.source.until_ordered(VM, COPY)
    await move.destination.detach()
    move.destination.server.migration_uri = "memory://elsewhere"
    await move.destination.attach()
    await move.source.until(
        lambda: move.source.vms[VM].move.peer_migration_uri == "memory://elsewhere"
    )


# ---- restarts ----


@pytest.mark.parametrize("phase", PHASES[:-1], ids=operations.Phase.Name)
async def test_a_restart_in_any_phase_goes_on_from_the_record(move: Move, phase: int) -> None:
    await move.reach(phase)
    before = await move.get()
    await move.lab.restart()
    assert await move.get() == before
    operation = await move.finish(phase)
    assert operation.phase == SUCCEEDED
    assert await move.owner() == ("host-2", 2)


async def test_a_restart_while_going_back_goes_on_back(move: Move) -> None:
    await move.reach(COPYING)
    await move.cancel()
    await move.source.outcome(await move.source.until_ordered(VM, ABORT), RUNNING)
    await move.destination.until_ordered(VM, CLEAN)
    await move.lab.restart()
    await move.destination.outcome(await move.destination.until_ordered(VM, CLEAN), ABSENT)
    assert (await move.done()).phase == CANCELLED


# ---- where to ----


async def relocate(lab: Lab, **request: object) -> pb.RelocateResponse:
    return await lab.operator.signaling.Relocate(pb.RelocateRequest(vm_id=VM, **request))


async def test_the_least_loaded_host_that_fits_is_chosen(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1))
    for number, memory in ((2, 2_048), (3, 8_192), (4, 16_384)):
        host = await lab.agent(
            f"host-{number}", capacity=types.Resources(vcpus=8, memory_mib=memory)
        )
        await host.register(vm(number))
    weak = await lab.agent("host-5", capabilities=[types.CAPABILITY_ACL])
    with lab.nothing_changes():
        assert (await relocate(lab, plan_only=True)).destination == "host-4"
    reply = await relocate(lab)
    assert reply.destination == reply.operation.destination == "host-4"
    assert weak.vms == {}


async def test_a_plan_lists_every_objection(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1, profile=deny_ssh()), types.VM_STATE_PAUSED)
    await lab.agent(
        "host-2",
        capacity=types.Resources(vcpus=1, memory_mib=256),
        hypervisor="libvirt",
        migration_uri="",
        capabilities=[types.CAPABILITY_ANTI_SPOOFING],
    )
    with lab.nothing_changes():
        plan = await relocate(lab, destination="host-2", plan_only=True)
    assert not plan.HasField("operation")
    assert sorted(o.reason for o in plan.objections) == sorted(
        [
            Reason.NOT_RUNNING.name,
            Reason.INCOMPATIBLE_HOST.name,  # no migration address
            Reason.INCOMPATIBLE_HOST.name,  # another hypervisor
            Reason.NO_CAPACITY.name,
            Reason.NOT_ENFORCEABLE.name,
        ]
    )
    refusal = await refusal_of(relocate(lab, destination="host-2"))
    assert len(refusal.evidence) == 5 and refusal.reason is Reason.NOT_RUNNING


async def test_a_plan_says_for_each_host_why_it_will_not_do(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1))
    for number in (2, 3):
        await lab.agent(f"host-{number}", capabilities=[])
    plan = await relocate(lab, plan_only=True)
    assert [(o.reason, o.server_id) for o in plan.objections] == [
        (Reason.NO_DESTINATION.name, ""),
        (Reason.NOT_ENFORCEABLE.name, "host-2"),
        (Reason.NOT_ENFORCEABLE.name, "host-3"),
    ]


async def test_what_is_on_its_way_counts_as_load(lab: Lab) -> None:
    move = await Move.ready(lab, capacity=types.Resources(vcpus=8, memory_mib=1_000))
    await move.begin()
    await move.source.register(vm(2))
    request = pb.RelocateRequest(vm_id=vm_id(2), destination="host-2")
    refusal = await refusal_of(lab.operator.signaling.Relocate(request))
    assert refusal.reason is Reason.NO_CAPACITY
    assert "488 of 1000 MiB" in refusal.message


async def test_operations_are_listed_newest_first_in_pages(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await lab.agent("host-2")
    for number in (1, 2, 3):
        await source.register(vm(number))
        request = pb.RelocateRequest(vm_id=vm_id(number), destination="host-2")
        await lab.operator.signaling.Relocate(request)
    listed, token = [], ""
    for _ in range(2):
        page = operations.ListOperationsRequest(page_size=2, page_token=token, active_only=True)
        answer = await lab.operator.operations.List(page)
        listed += [o.vm_id for o in answer.operations]
        token = answer.next_page_token
    assert sorted(listed) == [vm_id(1), vm_id(2), vm_id(3)] and token == ""
