"""A restored ledger gives a move its turn that had been over long ago: the host that was made the
owner then ignores its orders, and has the VM. What both hosts say decides, and ends the move."""

from __future__ import annotations

import pytest

from common.model.operation import HostedState, Phase
from common.model.server import Tenant, VirtualNetwork
from common.model.vm import Interface, Location, Resources, Vm, VmRecord, VmState
from tests.support.nouns import ip, mac, vm_id
from tests.support.servers import attached
from vcenter.core import keys
from vcenter.core.command import Command, Decision
from vcenter.core.overlay import Overlay
from vcenter.core.register import Confirm, Evidence, Outcome, Register
from vcenter.core.relocate import Relocate
from vcenter.core.table import Change, Table

MOVE = vm_id(77)
VM = Vm(
    vm_id(1),
    "vm-1",
    "blue",
    interfaces=(Interface(mac(1), (ip(1),), "blue-net", 100),),
    resources=Resources(1, 512),
)


def commit(table: Table, command: Command) -> Decision:
    decision = command.decide(Overlay(table), 1_700_000_000_000)
    table.apply(table.revision + 1, decision.changes)
    return decision


@pytest.fixture
def table() -> Table:
    """The move has just begun (again): the VM is on h1 at epoch 1, as far as the ledger knows."""
    table = Table()
    changes = [
        Change(keys.tenant("blue"), Tenant("blue")),
        Change(keys.network("blue-net"), VirtualNetwork("blue-net", "blue", (100,))),
        *(Change(keys.server(name), attached(name)) for name in ("h1", "h2")),
        Change(keys.vm(VM.vm_id), VmRecord(VM, Location("h1", VmState.RUNNING, 1), 1)),
    ]
    table.apply(1, changes)
    commit(table, Relocate(MOVE, VM.vm_id, "h2", "operator/alice"))
    return table


def phase(table: Table) -> Phase:
    move = table.operation(MOVE)
    assert move is not None
    return move.phase


def evidence(source: HostedState) -> Evidence:
    return Evidence(1, source, HostedState.RUNNING)


def test_a_destination_without_a_later_epoch_waits_for_its_move(table: Table) -> None:
    decision = commit(table, Register("h2", VM, VmState.RUNNING, 1))
    assert (decision.reply.outcome, phase(table)) == (Outcome.INCOMING, Phase.PREPARING)


def test_both_hosts_are_asked_where_the_destination_knows_of_a_later_owner(table: Table) -> None:
    decision = commit(table, Register("h2", VM, VmState.RUNNING, 2))
    assert decision.reply.confirm == Confirm("h1", 1)
    assert phase(table) is Phase.PREPARING


def test_it_is_the_owner_when_the_source_has_nothing_and_the_move_has_ended(table: Table) -> None:
    commit(table, Register("h2", VM, VmState.RUNNING, 2, evidence(HostedState.ABSENT)))
    record = table.vm(VM.vm_id)
    assert record is not None
    assert (record.location.server_id, record.location.epoch) == ("h2", 2)
    assert (record.operation_id, phase(table)) == ("", Phase.FAILED)


def test_nothing_changes_when_the_source_has_the_vm_too(table: Table) -> None:
    both = evidence(HostedState.RUNNING)
    assert commit(table, Register("h2", VM, VmState.RUNNING, 2, both)).refusal is not None
    record = table.vm(VM.vm_id)
    assert record is not None
    assert (record.location.server_id, phase(table)) == ("h1", Phase.PREPARING)
