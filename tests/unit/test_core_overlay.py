"""Commands of one group see each other's changes before any of them is visible."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import Reason, Refusal
from common.model.server import Server, VirtualNetwork
from common.model.vm import Interface, Vm, VmState
from tests.support.nouns import ip, mac, vm_id
from tests.support.world import Ledger
from vcenter.core.deregister import Deregister
from vcenter.core.inventory import PutNetwork, PutTenant
from vcenter.core.register import Register
from vcenter.core.servers import AttachServer


def register(number: int, address: int) -> Register:
    nic = Interface(mac(number), (ip(address),), "lan")
    return Register("h1", Vm(vm_id(number), tenant="blue", interfaces=(nic,)), VmState.RUNNING)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.commit(
        PutTenant("blue"),
        PutNetwork(VirtualNetwork("lan", "blue", (100,))),
        AttachServer(Server("h1")),
        register(1, address=1),
    )
    return made


def refusals(results: list[Any]) -> list[Reason]:
    raised = [r for r in results if isinstance(r, Refusal)]
    return [r.reason for r in raised] + [
        r.refusal.reason for r in results if not isinstance(r, Refusal) and r.refusal
    ]


def test_an_address_that_was_given_up_can_be_taken_in_the_same_group(ledger: Ledger) -> None:
    taken = ledger.commit(Deregister("h1", vm_id(1), 1), register(2, address=1))
    assert refusals(taken) == []
    changed = ledger.commit(register(2, address=5), register(3, address=1))
    assert refusals(changed) == []


def test_an_address_that_was_just_taken_is_held(ledger: Ledger) -> None:
    both = ledger.commit(register(2, address=7), register(3, address=7))
    assert refusals(both) == [Reason.CLAIM_HELD]
