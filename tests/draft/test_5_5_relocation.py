"""5.5: a move, make before break: prepared, copied, switched with the epoch, started, forgotten."""

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
)
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM, Move, order
from tests.support.nouns import by_id, deny_ssh, vm

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
CLOSED, OPEN = session.PORT_STATE_CLOSED, session.PORT_STATE_OPEN
FAILED, CANCELLED = operations.PHASE_FAILED, operations.PHASE_CANCELLED


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
