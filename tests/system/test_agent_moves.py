"""Moves between two real agents, ordered by a real vCenter."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.model.vm import VmState
from common.pb.vsignal.v1 import operations_pb2
from tests.system.agents import VM_ID, World, a_vm, until, world


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def test_a_vm_moves_with_its_policy(w: World) -> None:
    a, b = await w.host(), await w.host()
    a.hypervisor.create(a_vm())
    await until(lambda: a.open_ports() == {"vnet0"})
    assert w.owner() == "host-1"
    done = await w.done(await w.relocate(1, b))
    assert done.phase == operations_pb2.PHASE_SUCCEEDED, done
    assert w.owner() == "host-2" and w.epoch() == 2
    assert not a.hypervisor.vms
    assert b.hypervisor.vms[VM_ID.format(1)].state is VmState.RUNNING
    assert len(b.open_ports()) == 1
    await until(lambda: not a.fabric.host(a.vtep).ports)
    assert done.receipt.policy_hash_before == done.receipt.policy_hash_after != ""
    print(done)
