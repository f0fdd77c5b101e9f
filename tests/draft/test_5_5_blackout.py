"""5.5, the blackout in a receipt: what a third host hears of the guest while it moves."""

from __future__ import annotations

from typing import Any

import pytest

from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import session_pb2 as session
from tests.support.agent import PREPARE, Agent
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import interface, ip, mac, vm

BEGIN, LAST = session.LISTEN_STAGE_BEGIN, session.LISTEN_STAGE_LAST
STOP = session.LISTEN_STAGE_STOP


@pytest.fixture
async def beside(lab: Lab) -> Agent:
    """Has a VM on the same network."""
    third = await lab.agent("host-3")
    await third.register(vm(3))
    return third


def orders(agent: Agent) -> list[session.Listen]:
    return [each.listen for each in agent.heard if each.WhichOneof("message") == "listen"]


async def until_told(agent: Agent, stage: int) -> session.Listen:
    await agent.until(lambda: any(order.stage == stage for order in orders(agent)))
    return orders(agent)[-1]


async def test_a_third_host_listens_from_the_turn_to_the_start(beside: Agent, lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.begin()
    told = await until_told(beside, BEGIN)
    assert (told.operation_id, told.vni, told.mac, told.ip) == (move.id, 100, mac(1), ip(1))
    await move.prepare()
    await move.copy()
    await move.until(operations.PHASE_SWITCHING)
    assert [order.stage for order in orders(beside)] == [BEGIN]
    await move.start()
    await until_told(beside, LAST)
    await move.clean()
    done = await move.done()
    assert [order.stage for order in orders(beside)] == [BEGIN, LAST]
    assert done.receipt.observer == "host-3" and not done.receipt.HasField("blackout_ms")


async def test_what_it_heard_completes_the_receipt(beside: Agent, lab: Lab) -> None:
    """Also after the move has succeeded, which waits for nobody's ears; and once."""
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SUCCEEDED)
    await said(beside, move, longest_ms=83.5)
    await said(beside, move, longest_ms=1.0)
    done = await move.get()
    assert done.phase == operations.PHASE_SUCCEEDED and done.receipt.blackout_ms == 83.5
    assert done.receipt.downtime_ms == 12.5 and done.receipt.total_ms > 0, "the rest stands"


async def test_why_it_was_not_measured_is_in_the_receipt(beside: Agent, lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SUCCEEDED)
    await said(beside, move, why="it did not answer before its move, either")
    done = (await move.get()).receipt
    assert not done.HasField("blackout_ms") and "did not answer" in done.blackout_why


async def test_nobody_else_is_believed(beside: Agent, lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SUCCEEDED)
    await said(move.destination, move, longest_ms=0.1)
    assert not (await move.get()).receipt.HasField("blackout_ms")


async def test_without_a_third_host_nothing_is_measured(lab: Lab) -> None:
    """One that has nothing of the network hears nothing of it."""
    stranger = await lab.agent("host-3")
    move = await Move.ready(lab)
    await move.reach(operations.PHASE_SUCCEEDED)
    done = (await move.get()).receipt
    assert not done.observer and "no third host" in done.blackout_why
    assert not orders(stranger)


@pytest.mark.parametrize(
    ("own", "asked"), [(["2001:db8::1"], "2001:db8::1"), (["2001:db8::1", "10.1.0.1"], "10.1.0.1")]
)
async def test_ipv6_is_asked_for_where_nothing_else_is_known(
    beside: Agent, lab: Lab, own: list[str], asked: str
) -> None:
    move = await Move.ready(lab)
    await move.source.register(vm(1, interfaces=[interface(1, ips=own)]), epoch=1)
    await move.begin()
    assert (await until_told(beside, BEGIN)).ip == asked


async def test_a_guest_without_a_known_address_cannot_be_asked(beside: Agent, lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.source.register(vm(1, interfaces=[interface(1, ips=[])]), epoch=1)
    await move.begin()
    await move.destination.until_ordered(VM, PREPARE)
    assert "no address" in (await move.get()).receipt.blackout_why


async def test_a_move_that_goes_back_ends_the_listening(beside: Agent, lab: Lab) -> None:
    move = await Move.ready(lab)
    await move.begin()
    await until_told(beside, BEGIN)
    await move.cancel()
    await until_told(beside, STOP)


async def said(agent: Agent, move: Move, **what: Any) -> None:
    """Returns when the vCenter has heard it: it answers what is said after it."""
    before = networks(agent)
    await agent.say(silence=session.Silence(operation_id=move.id, **what))
    await agent.say(resync=session.Resync(vni=100))
    await agent.until(lambda: networks(agent) > before)


def networks(agent: Agent) -> int:
    return sum(each.WhichOneof("message") == "network" for each in agent.heard)
