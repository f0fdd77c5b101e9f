"""What counts as one identity in two domains, what is frozen by it, and for how long."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from common.errors import Reason, Refusal
from common.model.operation import Operation, Phase
from common.model.server import Liveness, Server
from common.model.twin import Side, Twin
from common.model.vm import Interface, Location, Vm, VmRecord, VmState
from tests.support.nouns import ip, mac, vm_id
from vcenter.core import indexes, keys
from vcenter.core.command import Command
from vcenter.core.dispute import Thaw
from vcenter.core.duplicate import Held, duplicate
from vcenter.core.fence import Settle
from vcenter.core.standby import Promote
from vcenter.core.table import Change, Table
from vcenter.core.twin import MAX_TWINS, Seen, holders

VM, OTHER = vm_id(1), vm_id(2)
SIDES = (Side("east", VM, "e1", 1), Side("west", VM, "w1", 1))
ADDRESS = f"100/{ip(1)}"


def record(
    vm_id: str = VM, epoch: int = 1, network: str = "net", server: str = "e1", operation: str = ""
) -> VmRecord:
    nic = Interface(mac(int(vm_id[-2:], 16)), (ip(1),), network, 100)
    vm = Vm(vm_id, tenant="blue", interfaces=(nic,))
    return VmRecord(vm, Location(server, VmState.RUNNING, epoch), 1, operation)


def held(domain: str, *records: VmRecord) -> Held:
    table = Table()
    table.apply(1, [Change(keys.vm(r.vm.vm_id), r) for r in records])
    return Held(domain, table)


def domains(identity: str, *everybody: Held) -> list[str]:
    return [side.domain for side in holders(identity, everybody)]


def with_move(of: Held, source: str, destination: str, phase: Phase = Phase.SUCCEEDED) -> Held:
    """It knows of a move of VM 1 that took it from epoch 1 to 2."""
    move = Operation(
        vm_id(7),
        "relocate",
        VM,
        source,
        destination,
        phase,
        "operator/a",
        created_ms=1,
        epoch_before=1,
        epoch_after=2,
    )
    of.view.apply(2, [Change(keys.operation(move.operation_id), move)])
    return of


def test_two_domains_that_have_a_vm_hold_it_twice() -> None:
    assert domains(VM, held("west", record()), held("east", record())) == ["east", "west"]
    assert domains(VM, held("west", record()), held("east")) == []


def test_what_is_there_for_its_moves_sake_is_nobodys_twin() -> None:
    on_its_way = record(server="east/e1", epoch=2)
    assert domains(VM, held("west", on_its_way), held("east", record())) == []
    given_up, taken = record(operation=vm_id(7)), record(epoch=2)
    assert domains(VM, held("west", taken), held("east", given_up)) == [], "the older word"
    newer = record(epoch=3, operation=vm_id(7))
    assert domains(VM, held("west", taken), held("east", newer)) == ["east", "west"]


def test_who_is_known_to_have_given_it_up_has_only_not_said_so_yet() -> None:
    east, west = held("east", record()), held("west", record(epoch=2))
    assert domains(VM, east, west) == ["east", "west"]
    for phase in (Phase.SETTLING, Phase.SUCCEEDED, Phase.LOST_NEEDS_FENCE):
        told = with_move(held("west", record(epoch=2)), "east/e1", "w1", phase)
        assert domains(VM, east, told) == []
        assert duplicate("east", record(), told, (east, told)) is None
        assert duplicate("west", record(epoch=2), east, (east, told)) is None
    assert duplicate("west", record(epoch=2), east, (east, west)) is not None
    within = with_move(held("west", record(epoch=2)), "w2", "w1")
    assert domains(VM, east, within) == ["east", "west"]
    again = held("east", record(epoch=3))
    assert domains(VM, again, west) == ["east", "west"], "begun anew since"


def test_an_address_is_held_twice_by_two_vms_of_one_network() -> None:
    west = held("west", record(OTHER))
    assert domains(ADDRESS, held("east", record()), west) == ["east", "west"]
    assert domains(ADDRESS, held("east", record(OTHER)), west) == [], "one VM"
    assert domains(ADDRESS, held("east", record(network="other")), west) == []


class Ledger:
    """A table, and what was decided on it."""

    def __init__(self) -> None:
        self.table = Table()
        self._now = count(10)
        server = Server("e1", "e1", liveness=Liveness.ATTACHED)
        self.table.apply(
            1, [Change(keys.server("e1"), server), Change(keys.vm(VM), record(server="gone"))]
        )

    def do(self, command: Command) -> None:
        now = next(self._now)
        self.table.apply(now, command.decide(self.table, now).changes)

    @property
    def twin(self) -> Twin | None:
        return self.table.twin(VM)

    def refuses(self, command: Command) -> Reason:
        with pytest.raises(Refusal) as caught:
            command.decide(self.table, next(self._now))
        return caught.value.reason


def test_nothing_is_started_of_it_and_it_may_be_forgotten() -> None:
    ledger = Ledger()
    ledger.do(Seen(VM, SIDES))
    assert ledger.refuses(Promote(VM, "operator/a", 1)) is Reason.IN_TWO_DOMAINS
    assert ledger.refuses(Settle(VM, "e1", "operator/a", 1)) is Reason.IN_TWO_DOMAINS
    assert ledger.refuses(Settle(VM, "", "operator/a", 1)) is Reason.NEEDS_FENCE
    ledger.do(Seen(VM, ()))
    assert ledger.refuses(Promote(VM, "operator/a", 1)) is Reason.NO_STANDBY


def test_a_thaw_holds_for_the_domains_that_it_was_said_of() -> None:
    ledger = Ledger()
    ledger.do(Seen(VM, SIDES))
    ledger.do(Thaw(VM))
    moved = (SIDES[0], replace(SIDES[1], server_id="w2", epoch=2))
    ledger.do(Seen(VM, moved))
    assert ledger.twin is not None and not ledger.twin.frozen and ledger.twin.sides == moved
    ledger.do(Seen(VM, (*moved, Side("south", VM, "s1", 1))))
    assert ledger.twin.frozen
    ledger.do(Seen(VM, ()))
    assert ledger.twin is None
    ledger.do(Seen(VM, SIDES))
    assert ledger.twin is not None and ledger.twin.frozen, "it is another time"


def test_the_same_said_again_changes_nothing() -> None:
    ledger = Ledger()
    ledger.do(Seen(VM, SIDES))
    assert Seen(VM, SIDES).decide(ledger.table, 99).changes == ()
    assert Seen(OTHER, ()).decide(ledger.table, 99).changes == ()


def test_of_a_flood_a_thousand_are_frozen() -> None:
    ledger = Ledger()
    for number in range(MAX_TWINS + 5):
        ledger.do(Seen(vm_id(number), SIDES))
    assert ledger.table.count(indexes.TWINS) == MAX_TWINS
