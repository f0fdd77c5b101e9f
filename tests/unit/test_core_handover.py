"""I1 and I3 across two ledgers: whatever is said late, twice, or never, between two vCenters and
their hosts, a VM that moves from one domain to the other has one owner, and runs at most once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from common.codec.checker import Checker
from common.codec.operation import to_operation
from common.model.operation import HostedState, MoveOutcome, MoveStep, Operation, Phase
from common.model.place import bare, is_abroad
from common.model.server import Tenant, VirtualNetwork
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState
from common.model.wanted import MoveOrder
from common.pb.vsignal.v1 import federation_pb2 as pb
from tests.support.nouns import ip, mac, vm_id
from tests.support.servers import attached
from vcenter.core import indexes, keys
from vcenter.core.abroad import Abroad, Planned, as_known
from vcenter.core.arrival import Received, Told
from vcenter.core.cancel import Cancel
from vcenter.core.command import Command, Decision
from vcenter.core.handover import Answered
from vcenter.core.heard import Heard
from vcenter.core.overlay import Overlay
from vcenter.core.relocate import Relocate
from vcenter.core.table import Change, Table
from vcenter.core.wanted import wanted_vm
from vcenter.federation.guests import from_guest, from_move, to_guest
from vcenter.ledger.records import decode, encode

VM, MOVE = vm_id(1), vm_id(77)
SEEDS, STEPS = 200, 90


class Side:
    """A domain's ledger, with one host; what it has written survives `restart`."""

    def __init__(self, name: str, server: str) -> None:
        self.name, self.server = name, server
        self.table = Table()
        self.now_ms = 1_700_000_000_000
        self.records: dict[str, Any] = {}
        tenant, network = Tenant("blue"), VirtualNetwork("blue-net", "blue", (100,))
        self.put(
            Change(keys.tenant("blue"), tenant),
            Change(keys.network("blue-net"), network),
            Change(keys.server(server), attached(server)),
        )

    def put(self, *changes: Change) -> None:
        before = self.epoch()
        for applied in self.table.apply(self.table.revision + 1, changes):
            self.records.pop(applied.key, None)
            if applied.after is not None:
                self.records[applied.key] = applied.after
        assert self.epoch() >= before, "I3"

    def commit(self, command: Command) -> Decision:
        self.now_ms += 7
        decision = command.decide(Overlay(self.table), self.now_ms)
        self.put(*decision.changes)
        return decision

    def restart(self) -> None:
        stored = {key: encode(record) for key, record in self.records.items()}
        revision, old = self.table.revision, self.records
        self.table, self.records = Table(), {}
        for key, value in stored.items():
            assert value is not None
            self.table.apply(old[key].revision, [Change(key, decode(key, value))])
            self.records[key] = self.table.get(key)
        self.table.apply(revision, [])
        assert self.records == old

    def epoch(self) -> int:
        record, grave = self.table.vm(VM), self.table.tombstone(VM)
        return max(record.location.epoch if record else 0, grave.epoch if grave else 0)

    def owns(self) -> bool:
        record = self.table.vm(VM)
        return record is not None and not is_abroad(record.location.server_id)

    def move(self) -> Operation | None:
        return self.table.operation(MOVE)


@dataclass
class Guest:
    """Where the VM truly is: it runs, its memory waits to be started, or it stands still."""

    runs_on: set[str] = field(default_factory=lambda: {"e1"})
    landed: str = ""
    held: str = ""

    def truth(self, where: str) -> HostedState:
        if where in self.runs_on or self.landed == where:
            return HostedState.RUNNING
        return HostedState.HELD if self.held == where else HostedState.ABSENT


class World:
    """Two sides and what is on its way between them, in any order, for ever."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.holds = self.chance.random() < 0.5  # its source can take it back
        self.east, self.west = Side("east", "e1"), Side("west", "w1")
        self.guest = Guest()
        self.orders: dict[str, MoveOrder | None] = {}
        self.seen: dict[str, int] = {}
        self.heard: list[tuple[Side, Heard]] = []
        self.told: list[Told] = []
        self.answered: list[Answered] = []
        self._begin()

    def _begin(self) -> None:
        interface = Interface(mac(1), (ip(1),), "blue-net", 100)
        vm = Vm(VM, "vm-1", "blue", interfaces=(interface,), resources=Resources(1, 512))
        record = VmRecord(vm, Location("e1", VmState.RUNNING, 1), 1)
        self.east.put(Change(keys.vm(VM), record))
        there = as_known(attached("w1"), "west/w1")
        abroad = Abroad({VM: Planned(there)}, "operator/alice/admin")
        self.east.commit(Relocate(MOVE, VM, "west/w1", "operator/alice", abroad=abroad))

    # ---- what may happen ----

    def step(self, friendly: bool = False) -> None:
        works = friendly or self.chance.random() < 0.7
        actions = [self.say, self.hear_told, self.hear_answer, self.hear_host]
        for _ in range(1 if not friendly else 4):
            self.chance.choice(actions)()
        where = self.chance.choice(("e1", "w1"))
        self.listen(where)
        if self.chance.random() < 0.7:
            self.act(where, works)
        if not friendly:
            self.mishap()
        self.check()

    def mishap(self) -> None:
        lot = self.chance.random()
        if lot < 0.1:
            self.chance.choice((self.east, self.west)).restart()
        elif lot < 0.13:
            self.guest.landed = ""  # the destination loses what has arrived there
        elif lot < 0.17:
            move = self.east.move()
            if move is not None and move.phase in (Phase.PREPARING, Phase.COPYING):
                self.east.commit(Cancel(MOVE))

    def say(self) -> None:
        """The east's vCenter, to the west's."""
        move, table = self.east.move(), self.east.table
        assert move is not None
        check, record = Checker(), table.vm(VM)
        guest = None
        if record is not None and not move.epoch_after:
            wire = pb.Guest.FromString(to_guest(table, record).SerializeToString())
            guest = from_guest(check, wire, "east", "west")
        said = from_move(check, to_operation(move), "east", "west")
        check.done()
        self.told.append(Told(said, guest, may_declare=False))

    def hear_told(self) -> None:
        """One that was said at any time; its answer is on its way then."""
        if not self.told:
            return
        told = self.chance.choice(self.told[-6:])
        received: Received = self.west.commit(told).reply
        theirs, outcome = received.move, None
        if theirs is not None:
            said = [h.outcome for side, h in self.heard if side is self.west]
            fresh = [o for o in said if Heard("w1", o).is_asked(theirs)]
            outcome = fresh[-1] if fresh else None
            theirs = from_move(Checker(), to_operation(theirs), "west", "east")
        silent = self.chance.random() < 0.02
        self.answered.append(Answered(MOVE, theirs, tuple(received.objections), outcome, silent))

    def hear_answer(self) -> None:
        if self.answered:
            self.east.commit(self.chance.choice(self.answered[-6:]))

    def hear_host(self) -> None:
        if self.heard:
            side, heard = self.chance.choice(self.heard[-6:])
            side.commit(heard)

    # ---- hosts ----

    def listen(self, where: str) -> None:
        side = self.east if where == "e1" else self.west
        wanted = wanted_vm(side.table, where, VM)
        if wanted is None:
            self.orders[where] = None
        elif wanted.epoch >= self.seen.get(where, 0):
            self.seen[where] = wanted.epoch
            self.orders[where] = wanted.move

    def act(self, where: str, works: bool) -> None:
        order = self.orders.get(where)
        if order is None:
            return
        ok = self._carry_out(where, order, works)
        outcome = MoveOutcome(
            MOVE, VM, order.epoch, order.step, ok, self.guest.truth(where), policy_hash="p"
        )
        self.heard.append((self.east if where == "e1" else self.west, Heard(where, outcome)))

    def _carry_out(self, where: str, order: MoveOrder, works: bool) -> bool:
        guest = self.guest
        runs, here = where in guest.runs_on, guest.truth(where) is not HostedState.ABSENT
        if order.step is MoveStep.PREPARE:
            return works and not here
        if order.step is MoveStep.COPY:
            if runs and works:
                guest.runs_on.discard(where)
                guest.landed = bare(order.peer_server)
                guest.held = where if self.holds else ""
            return works or not runs
        if order.step is MoveStep.START:
            if works and where in (guest.landed, guest.held):
                guest.runs_on.add(where)
                guest.landed = guest.held = ""
            return where in guest.runs_on
        if order.step is MoveStep.CLEAN:
            if guest.held == where:
                guest.held = ""
            return works and not runs
        return works and runs  # ABORT

    # ---- what must hold ----

    def check(self) -> None:
        assert len(self.guest.runs_on) <= 1, "I1"
        assert not (self.east.owns() and self.west.owns()), "one owner"
        if self.east.owns() or self.west.owns():
            owner = self.east if self.east.owns() else self.west
            other = self.west if self.east.owns() else self.east
            assert owner.epoch() >= other.epoch(), "whoever owns it has the last word"

    def settled(self) -> bool:
        east, west = self.east.move(), self.west.move()
        assert east is not None
        known = west is not None and west.phase is east.phase
        return east.phase.final and east.told and known


@pytest.mark.parametrize("block", range(4))
def test_two_ledgers_agree_whatever_is_late_lost_or_said_twice(block: int) -> None:
    ends = set()
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        world = World(seed)
        for _ in range(world.chance.randrange(STEPS)):
            world.step()
        for _ in range(2000):
            if world.settled():
                break
            world.step(friendly=True)
        assert world.settled(), seed
        ends.add(_how_it_ended(world))
    assert {"west", "east"} <= ends


def _how_it_ended(world: World) -> str:
    east, west = world.east, world.west
    move = east.move()
    assert move is not None
    if move.phase is Phase.LOST_NEEDS_FENCE:
        assert not world.guest.runs_on
        return "lost"
    assert east.owns() != west.owns()
    owner = east if east.owns() else west
    assert world.guest.runs_on == {owner.server}
    assert (move.phase is Phase.SUCCEEDED) == west.owns() or move.failure is not None
    for side in (east, west):
        record, grave = side.table.vm(VM), side.table.tombstone(VM)
        assert side.owns() or record is None
        assert record is None or not record.operation_id
        assert grave is None or is_abroad(grave.last.location.server_id)
        assert not side.table.count(indexes.ACTIVE)
    return owner.name


def test_an_earlier_word_that_comes_after_the_end_begins_nothing() -> None:
    """The other side never heard of the move while it lasted."""
    world = World(0)
    world.say()
    (late,) = world.told
    world.east.commit(Cancel(MOVE))
    world.listen("e1")
    world.act("e1", works=True)
    world.hear_host()
    world.say()
    world.west.commit(world.told[-1])
    west = world.west.move()
    assert west is not None and west.phase is Phase.CANCELLED
    world.west.commit(late)
    assert world.west.table.vm(VM) is None
    assert world.west.move() == west


def test_a_switch_of_another_epoch_is_not_taken() -> None:
    world = World(1)
    world.say()
    world.west.commit(world.told[0])
    told = world.told[0]
    wrong = replace(told.move, phase=Phase.SWITCHING, epoch_after=5)
    world.west.commit(replace(told, move=wrong))
    assert not world.west.owns()
