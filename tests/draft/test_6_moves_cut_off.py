"""6 and 5.5: whatever stops or fails in a move between domains, one of them owns the VM, or a
person decides."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as signaling
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, CLEAN, COPY, HELD, PREPARE, RUNNING, SILENT, START
from tests.support.calls import refusal_of
from tests.support.country import Country, find, soon
from tests.support.crossing import Crossing, found_everywhere, moving_country, state
from tests.support.lab import Lab
from tests.support.moving import PHASES, VM
from tests.support.nouns import by_id, deny_ssh, vm

PREPARING, COPYING, SWITCHING, SETTLING, SUCCEEDED = PHASES
IN_THE_WEST, IN_THE_EAST = ("west", "w1", 2), ("east", "e1", 1)


@pytest.fixture
async def country() -> AsyncIterator[Country]:
    async with moving_country() as country:
        yield country


@pytest.mark.parametrize("who", ["east", "west", "center"])
async def test_a_vcenter_that_restarts_at_every_phase_goes_on(country: Country, who: str) -> None:
    lab: Lab = getattr(country, who)
    move = await Crossing.between(country)
    await move.begin()
    for phase, step in zip(PHASES, (move.prepare, move.copy, move.start, move.clean), strict=False):
        await move.both_in(phase)
        await lab.restart()
        await step()
    assert (await move.done()).phase == SUCCEEDED
    await move.ended()
    await found_everywhere(country, IN_THE_WEST)
    assert not await country.center.alerts()


async def test_cut_off_while_it_is_prepared_it_can_be_called_off(country: Country) -> None:
    """The other side hears of it when it is back, and forgets the VM."""
    move = await Crossing.between(country)
    await move.begin()
    await move.both_in(PREPARING)
    await country.center.stop()
    await move.cancel()
    await move.stay()
    assert (await move.done()).phase == operations.PHASE_CANCELLED
    assert (await move.mirror()).phase == PREPARING, "it cannot know"
    await country.center.start()
    assert (await move.ended()).phase == operations.PHASE_CANCELLED
    await move.destination.until_gone(VM)
    await found_everywhere(country, IN_THE_EAST)


async def test_cut_off_at_the_switch_nobody_starts_it_until_they_hear(country: Country) -> None:
    """The source's domain has given it up and the destination's has not heard: unknown is not
    failed, and neither host is told to run it."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.both_in(COPYING)
    await country.center.stop()
    await move.copy()
    await move.until(SWITCHING)
    assert (await move.mirror()).phase == COPYING
    assert move.destination.vms[VM].move.step == PREPARE
    assert VM not in move.source.vms
    assert (await refusal_of(move.cancel())).reason is Reason.TOO_LATE_TO_CANCEL
    gone = await find(country.east, by_id(1))
    assert (gone.authority, gone.location.server_id) == ("west", "w1")
    assert gone.certainty == signaling.CERTAINTY_STALE
    await country.center.start()
    await move.start()
    await move.clean()
    assert (await move.done()).phase == SUCCEEDED
    await found_everywhere(country, IN_THE_WEST)


async def test_cut_off_after_the_switch_it_runs_and_the_other_side_hears_later(
    country: Country,
) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.copy()
    await move.both_in(SWITCHING)
    await country.center.stop()
    await move.start()

    async def runs() -> bool:
        return (await move.mirror()).phase == SETTLING

    await soon(runs)
    assert state(country.west) == types.VM_STATE_RUNNING and state(country.east) is None
    assert (await move.get()).phase == SWITCHING
    await country.center.start()
    await move.clean()
    assert (await move.done()).phase == SUCCEEDED
    await move.ended()


async def test_cut_off_at_the_end_the_other_side_is_told_when_it_is_back(
    country: Country,
) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.copy()
    await move.start()
    await move.both_in(SETTLING)
    await country.west.stop()
    await move.clean()
    done = await move.done()
    assert done.phase == SUCCEEDED and not done.told
    kept = await find(country.east, by_id(1))
    assert (kept.authority, kept.certainty) == ("west", signaling.CERTAINTY_STALE)
    await country.east.restart()
    await country.west.start()
    assert (await move.ended()).phase == SUCCEEDED


# ---- what goes wrong ----


async def test_a_destination_that_cannot_prepare_ends_it(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    wanted = await move.destination.until_ordered(VM, PREPARE)
    failure = operations.Failure(reason=Reason.NETWORK_FAILED.name, message="no bridge")
    await move.destination.outcome(wanted, ABSENT, ok=False, failure=failure)
    await move.stay()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "NETWORK_FAILED")
    assert (await move.ended()).failure.message == "no bridge"
    await found_everywhere(country, IN_THE_EAST)


async def test_a_copy_that_fails_goes_back_on_both_sides(country: Country) -> None:
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(wanted, RUNNING, ok=False)
    await move.go_back()
    assert (await move.done()).phase == operations.PHASE_FAILED
    await move.ended()
    await found_everywhere(country, IN_THE_EAST)


async def test_cancelled_where_it_was_to_go(country: Country) -> None:
    """The destination's vCenter passes it on to the one that decides."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    await move.both_in(COPYING)
    request = operations.CancelOperationRequest(operation_id=move.id)
    assert (await country.west.operator.operations.Cancel(request)).cancel_requested
    await move.go_back()
    assert (await move.done()).phase == operations.PHASE_CANCELLED
    assert (await move.ended()).phase == operations.PHASE_CANCELLED


async def test_a_silent_destination_ends_it_before_the_copy(country: Country) -> None:
    move = await Crossing.between(country)
    await country.west.reconfigure(lease_seconds=20.0)  # a second
    async with move.destination.beating():
        await move.begin()
        await move.both_in(PREPARING)
    await move.destination.detach()
    await move.stay()
    done = await move.done()
    assert (done.phase, done.failure.reason) == (operations.PHASE_FAILED, "SESSION_LOST")
    await move.ended()


async def switched(country: Country, truth: int) -> Crossing:
    """The source has said this of the VM, and the destination is to start it."""
    move = await Crossing.between(country)
    await move.begin()
    await move.prepare()
    wanted = await move.source.until_ordered(VM, COPY)
    await move.source.outcome(wanted, truth, policy_hash=wanted.profile_hash)
    await move.destination.until_ordered(VM, START)
    return move


async def test_what_the_source_still_holds_goes_back_to_it(country: Country) -> None:
    """Given up there before it is taken here: another change of owner, another epoch."""
    move = await switched(country, HELD)
    await move.destination.outcome(move.destination.vms[VM], ABSENT, ok=False)
    wanted = await move.source.until_ordered(VM, START)
    assert wanted.move.epoch == 3
    assert (await move.mirror()).phase == operations.PHASE_RETURNING
    assert state(country.west) is None
    cleaned = await move.destination.until_ordered(VM, CLEAN)
    await move.destination.outcome(cleaned, ABSENT)
    await move.source.outcome(wanted, RUNNING)
    assert (await move.done()).phase == operations.PHASE_FAILED
    assert (await move.ended()).phase == operations.PHASE_FAILED
    await found_everywhere(country, ("east", "e1", 3))


async def test_what_neither_has_is_lost_on_both_sides_and_a_person_settles_it(
    country: Country,
) -> None:
    move = await switched(country, ABSENT)
    await move.destination.outcome(move.destination.vms[VM], ABSENT, ok=False)
    assert (await move.done()).phase == operations.PHASE_LOST_NEEDS_FENCE
    assert (await move.mirror()).phase == operations.PHASE_LOST_NEEDS_FENCE
    assert state(country.west) == types.VM_STATE_LOST_NEEDS_FENCE
    for lab in (country.east, country.west):
        assert await lab.alerts(Reason.NEEDS_FENCE.name)
    await move.ended()
    settle = operations.SettleRequest(vm_id=VM, server_id="w1")
    settled = await country.center.operator.operations.Settle(settle)
    assert (settled.server_id, settled.epoch) == ("w1", 3)


async def test_where_the_source_dies_in_mid_copy_the_other_domains_host_is_asked(
    country: Country,
) -> None:
    """Nobody starts the VM elsewhere but a person, who has fenced the host; and not while the
    destination, in another domain, has it or says nothing."""
    move = await Crossing.between(country)
    other = await country.east.agent("e2")
    await country.east.reconfigure(lease_seconds=20.0)  # a second
    async with other.beating():
        async with move.source.beating():
            await move.begin()
            await move.prepare()
            await move.both_in(COPYING)
        await move.source.detach()

        async def silent() -> bool:
            return (await country.east.server("e1")).server.liveness == types.LIVENESS_SILENT

        await soon(silent)
        fence = operations.FenceRequest(server_id="e1", word="pulled both plugs")
        await country.east.operator.operations.Fence(fence)
        settle = operations.SettleRequest(vm_id=VM, server_id="e2")
        for said, reason in (
            (SILENT, Reason.NEEDS_FENCE),
            (RUNNING, Reason.RUNNING_IN_TWO_PLACES),
        ):
            move.destination.truth[VM] = said
            refusal = await refusal_of(country.east.operator.operations.Settle(settle))
            assert refusal.reason is reason and refusal.evidence["server"] == "west/w1"
        move.destination.truth[VM] = ABSENT
        settled = await country.east.operator.operations.Settle(settle)
        assert (settled.server_id, settled.epoch) == ("e2", 2)
        assert (await move.done()).phase == operations.PHASE_FAILED
        assert (await move.ended()).phase == operations.PHASE_FAILED
        assert state(country.west) is None
        await found_everywhere(country, ("east", "e2", 2))


async def test_moved_by_hand_before_it_is_shown_in_both_until_a_person_decides(
    country: Country,
) -> None:
    """Nobody's agent had told of it: the source could only say that it is not there, and the host
    where it runs tells its own domain. The other one lost it, and says so."""
    move = await switched(country, ABSENT)
    await move.destination.outcome(move.destination.vms[VM], ABSENT, ok=False)
    assert (await move.done()).phase == operations.PHASE_LOST_NEEDS_FENCE
    await move.ended()
    where_it_runs = await country.east.agent("e2")
    await where_it_runs.register(vm(1, profile=deny_ssh()))

    async def shown() -> bool:
        return bool(await country.center.alerts(Reason.RUNNING_IN_TWO_PLACES.name))

    await soon(shown)
    assert await country.west.alerts(Reason.NEEDS_FENCE.name)
    assert state(country.west) == types.VM_STATE_LOST_NEEDS_FENCE
    await country.west.operator.operations.Settle(operations.SettleRequest(vm_id=VM))
    await found_everywhere(country, ("east", "e2", 3))
