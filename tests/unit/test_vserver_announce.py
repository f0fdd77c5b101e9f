"""What is registered and deregistered, when, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import Reason, Refusal
from common.model.operation import MoveKind, MoveStep
from common.model.vm import VmState
from tests.unit.agent_values import OTHER, VM, hosted, wanted
from vserver.core.announce import (
    FIRST_DELAY,
    GONE_AFTER,
    LAST_DELAY,
    Announcer,
    Deregister,
    Message,
    Register,
)
from vserver.core.epochs import Epochs
from vserver.core.wanted import Wanted
from vserver.hypervisor.port import HostedVm

RUNNING, OFF, INCOMING = VmState.RUNNING, VmState.SHUT_OFF, VmState.INCOMING


class Host:
    """An announcer with its surroundings; `say` lets it speak and hears it."""

    def __init__(self) -> None:
        self.epochs = Epochs()
        self.wanted = Wanted(self.epochs)
        self.wanted.attach(resumes=False)
        self.wanted.synced(1)
        self.announcer = Announcer(self.epochs)
        self.vms: dict[str, HostedVm] = {}

    def here(self, state: VmState = RUNNING, name: str = "one") -> None:
        self.vms[VM] = hosted(state=state, name=name)

    def owns(self, epoch: int = 1) -> None:
        self.wanted.put_vm(wanted(epoch=epoch))

    def due(self, now: float = 0.0) -> list[Message]:
        return self.announcer.due(self.wanted, self.vms, now)

    def register(self, now: float = 0.0) -> Register:
        [message] = self.due(now)
        assert isinstance(message, Register)
        self.announcer.sending(message)
        return message

    def registered(self) -> Register:
        """Registered, and the stream has confirmed it."""
        message = self.register()
        self.announcer.accepted(message, 0.0)
        self.owns()
        assert self.due() == []
        return message

    def refused(self, reason: Reason, now: float = 0.0) -> None:
        self.announcer.refused(self.register(now), Refusal(reason, "no"), now)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.mark.parametrize("state", [RUNNING, VmState.PAUSED, OFF, INCOMING])
def test_a_vm_is_registered_once(host: Host, state: VmState) -> None:
    host.here(state)
    message = host.register()
    assert message == Register(hosted(state=state).vm, state, 0)
    assert host.due() == [], "while it is on its way nothing is said"
    host.announcer.accepted(message, 0.0)
    host.owns()
    assert host.due(1000.0) == []


def test_nothing_is_said_before_the_stream_has_told_everything(host: Host) -> None:
    host.here()
    host.wanted.attach(resumes=False)
    assert host.due() == []
    host.wanted.synced(2)
    assert len(host.due()) == 1


@pytest.mark.parametrize("change", ["state", "name"])
def test_what_changed_is_registered_again(host: Host, change: str) -> None:
    host.here()
    host.registered()
    host.here(VmState.PAUSED) if change == "state" else host.here(name="two")
    assert host.register().epoch == 1


@pytest.mark.parametrize("step", list(MoveStep))
def test_a_vm_with_an_order_is_left_to_the_move(host: Host, step: MoveStep) -> None:
    host.here()
    host.wanted.put_vm(wanted(step=step))
    assert host.due() == []
    host.vms.clear()
    assert host.due() == host.due(GONE_AFTER + 1) == []


@pytest.mark.parametrize("step", set(MoveStep) - {MoveStep.START})
def test_a_vm_with_a_standby_is_told_of_as_if_it_had_none(host: Host, step: MoveStep) -> None:
    def with_a_standby() -> None:
        known = wanted(step=step)
        assert known.move is not None
        order = replace(known.move, kind=MoveKind.STANDBY)
        host.wanted.put_vm(replace(known, move=order))

    host.here()
    host.registered()
    with_a_standby()
    host.here(name="two")
    host.announcer.accepted(host.register(), 0.0)
    host.vms.clear()
    assert host.due() == []
    assert host.due(GONE_AFTER) == [Deregister(VM, 1)]


def test_an_arrival_by_hand_is_told_twice_as_it_comes_and_when_it_runs(host: Host) -> None:
    host.here(INCOMING)
    host.announcer.accepted(host.register(), 0.0)
    assert host.due(1000.0) == []
    host.here(RUNNING)
    assert host.register(1000.0).state is RUNNING


def test_a_refusal_is_repeated_more_and_more_seldom(host: Host) -> None:
    host.here()
    now, waits = 0.0, []
    for _ in range(8):
        host.refused(Reason.OWNER_SILENT, now)
        wait = host.announcer.next_due(now)
        assert wait is not None and host.due(now + wait - 0.01) == []
        waits.append(wait)
        now += wait
    assert waits[0] == FIRST_DELAY and waits[-1] == LAST_DELAY
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert host.announcer.problem(VM) == "OWNER_SILENT: no"


def test_a_refused_vm_that_changes_is_registered_at_once(host: Host) -> None:
    host.here()
    for now in (0.0, 1.0, 3.0):
        host.refused(Reason.CLAIM_HELD, now)
    host.here(VmState.PAUSED)
    host.refused(Reason.CLAIM_HELD, 3.0)
    assert host.announcer.next_due(3.0) == FIRST_DELAY


def test_a_vm_that_left_and_came_back_unseen_comes_as_an_arrival(host: Host) -> None:
    """The epoch of its earlier stay would be refused for ever."""
    host.here()
    host.epochs.hold(VM, 3)
    message = host.register()
    assert message.epoch == 3
    host.announcer.refused(message, Refusal(Reason.STALE_EPOCH, "no"), 0.0)
    assert host.register(FIRST_DELAY).epoch == 0


def test_after_a_reattach_a_refused_vm_is_registered_at_once(host: Host) -> None:
    host.here()
    host.refused(Reason.CLAIM_HELD)
    host.announcer.reattached()
    assert len(host.due(0.0)) == 1


def test_a_registration_clears_the_problem(host: Host) -> None:
    host.here()
    host.refused(Reason.CLAIM_HELD)
    host.announcer.accepted(host.register(FIRST_DELAY), FIRST_DELAY)
    assert host.announcer.problem(VM) == ""


@pytest.mark.parametrize(
    "reason", [Reason.STALE_EPOCH, Reason.NOT_OWNER, Reason.RUNNING_IN_TWO_PLACES]
)
def test_a_leftover_definition_is_repeated_rarely_until_it_runs(host: Host, reason: Reason) -> None:
    """One day the ledger may have nothing else of that VM."""
    host.here(OFF)
    host.refused(reason)
    assert host.due(LAST_DELAY - 1) == [] and host.announcer.next_due(0.0) == LAST_DELAY
    assert len(host.due(LAST_DELAY)) == 1
    assert reason.name in host.announcer.problem(VM)
    host.here(RUNNING)
    assert host.register(10_000.0).state is RUNNING


def test_a_vm_that_is_taken_from_us_is_asked_about_with_patience(host: Host) -> None:
    host.here()
    host.registered()
    host.wanted.drop_vm(VM)
    now, waits = 0.0, []
    for _ in range(7):
        assert host.due(now) == []
        wait = host.announcer.next_due(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        host.announcer.accepted(host.register(now), now)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_an_answer_that_is_not_confirmed_yet_is_not_repeated_at_once(host: Host) -> None:
    host.here()
    host.announcer.accepted(host.register(), 0.0)
    assert host.due(0.0) == []
    host.owns()
    assert host.due(100.0) == [] and host.announcer.next_due(100.0) is None


# ---- epochs ----


def test_a_registration_carries_the_epoch_of_an_unbroken_stay(host: Host) -> None:
    host.here()
    host.owns(epoch=4)
    assert host.register().epoch == 4
    host = Host()
    host.here()
    host.epochs.hold(VM, 4)
    assert host.register().epoch == 4, "known from before a restart"


@pytest.mark.parametrize("state", [None, OFF, INCOMING])
def test_a_vm_that_was_away_comes_back_without_an_epoch(host: Host, state: VmState | None) -> None:
    host.epochs.hold(VM, 4)
    if state is not None:
        host.here(state)
    host.due()
    host.here(RUNNING)
    assert host.register().epoch == 0
    assert host.epochs.seen(VM) == 4, "orders are still measured by it"


# ---- farewells ----


def test_a_vm_that_is_gone_is_deregistered_after_a_moment(host: Host) -> None:
    host.owns(epoch=3)
    assert host.due(10.0) == []
    assert host.announcer.next_due(10.0) == GONE_AFTER
    assert host.due(10.0 + GONE_AFTER) == [Deregister(VM, 3)]


def test_a_vm_that_comes_back_in_time_is_not_deregistered(host: Host) -> None:
    host.owns()
    host.due(0.0)
    host.here()
    host.announcer.accepted(host.register(1.0), 1.0)
    host.vms.clear()
    assert host.due(GONE_AFTER) == [], "the moment begins anew"


def test_a_vm_that_is_not_ours_is_not_deregistered(host: Host) -> None:
    host.wanted.put_vm(wanted(owned=False))
    assert host.due(0.0) == host.due(100.0) == []


def test_a_vm_that_is_defined_here_is_not_deregistered(host: Host) -> None:
    host.here(OFF)
    host.registered()
    assert host.due(100.0) == []


def test_a_refused_farewell_is_repeated_with_patience(host: Host) -> None:
    host.owns()
    host.due(0.0)
    [message] = host.due(GONE_AFTER)
    host.announcer.sending(message)
    assert host.due(100.0) == []
    host.announcer.refused(message, Refusal(Reason.STORE_FAILED, "disk"), 100.0)
    assert host.due(100.5) == [] and host.due(101.0) == [message]


def test_a_farewell_that_was_taken_is_not_repeated_at_once(host: Host) -> None:
    host.owns()
    host.due(0.0)
    [message] = host.due(GONE_AFTER)
    host.announcer.sending(message)
    host.announcer.accepted(message, GONE_AFTER)
    assert host.due(GONE_AFTER) == []
    host.wanted.drop_vm(VM)
    assert host.due(100.0) == []
    host.here()
    assert host.register(100.0).vm_id == VM


def test_a_vm_that_comes_back_right_behind_its_farewell_comes_anew(host: Host) -> None:
    host.here()
    host.registered()
    host.vms.clear()
    host.due(0.0)
    [message] = host.due(GONE_AFTER)
    host.announcer.sending(message)
    host.here()
    assert host.due(GONE_AFTER) == [], "one message at a time"
    host.announcer.accepted(message, GONE_AFTER)
    assert host.register(GONE_AFTER).epoch == 0, "though the stream still names the old one"


def test_vms_do_not_wait_for_each_other(host: Host) -> None:
    host.here()
    host.register()
    host.vms[OTHER] = hosted(OTHER)
    assert [m.vm_id for m in host.due()] == [OTHER]


def test_what_is_refused_for_now_is_not_said_again_before_the_vcenter_asked_for_it(
    host: Host,
) -> None:
    host.here()
    refusal = Refusal(Reason.OWNER_SILENT, "", retry_after=7.0)
    host.announcer.refused(host.register(0.0), refusal, 0.0)
    assert not host.due(6.9) and host.due(7.0)
