"""5.2, VM Configuration Deregistration (A14): remove the profile, or alert the vServer."""

from __future__ import annotations

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import signaling_pb2 as pb
from tests.support.agent import RUNNING, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import by_id, by_ip, by_mac, vm, vm_id

VM = vm_id(1)


async def moved_by_hand(lab: Lab) -> tuple[Agent, Agent]:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    new.truth[VM] = RUNNING
    await new.register(vm(1))
    return old, new


async def test_the_profile_is_removed_under_all_its_keys(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    reply = await host.deregister(VM, epoch=1)
    assert reply.revision == lab.revision
    keys = pb.LookupRequest(keys=[by_id(1), by_mac(1), by_ip(1)])
    answer = await lab.operator.directory.Lookup(keys)
    assert [result.found for result in answer.results] == [False] * 3
    await host.until_gone(VM)
    await host.until(lambda: not host.networks)


async def test_the_vserver_is_alerted_of_a_vm_that_has_no_profile(lab: Lab) -> None:
    host = await lab.agent("host-1")
    with lab.nothing_changes():
        assert (await refusal_of(host.deregister(VM, 1))).reason is Reason.UNKNOWN_VM


async def test_only_the_owner_removes(lab: Lab) -> None:
    host, other = await lab.agent("host-1"), await lab.agent("host-2")
    await host.register(vm(1))
    with lab.nothing_changes():
        refusal = await refusal_of(other.deregister(VM, 1))
    assert refusal.reason is Reason.NOT_OWNER
    assert refusal.evidence == {"owner": "host-1", "epoch": "1"}


@pytest.mark.parametrize("epoch", [1, 3])
async def test_only_at_the_current_epoch(lab: Lab, epoch: int) -> None:
    _, new = await moved_by_hand(lab)
    with lab.nothing_changes():
        assert (await refusal_of(new.deregister(VM, epoch))).reason is Reason.STALE_EPOCH


async def test_a_late_deregister_from_the_old_host_changes_nothing(lab: Lab) -> None:
    old, _ = await moved_by_hand(lab)
    with lab.nothing_changes():
        assert (await refusal_of(old.deregister(VM, 1))).reason is Reason.STALE_EPOCH
    assert (await lab.record(VM)).location.server_id == "host-2"


async def test_the_epoch_must_be_said(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    with lab.nothing_changes():
        refusal = await refusal_of(host.deregister(VM, 0))
    assert [v.field for v in refusal.violations] == ["epoch"]


async def test_a_vm_that_returns_has_a_greater_epoch(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.deregister(VM, 1)
    refusal = await refusal_of(host.register(vm(1), epoch=1))
    assert refusal.reason is Reason.STALE_EPOCH
    reply = await host.register(vm(1))
    assert reply.outcome == pb.REGISTER_OUTCOME_CREATED
    assert reply.record.location.epoch == 2


async def test_one_that_returns_elsewhere_is_told_where_it_was(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    await old.deregister(VM, 1)
    reply = await new.register(vm(1))
    assert reply.outcome == pb.REGISTER_OUTCOME_ARRIVED
    assert (reply.came_from.server_id, reply.came_from.epoch) == ("host-1", 1)
    assert reply.record.location.epoch == 2


async def test_the_epoch_survives_a_restart(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.deregister(VM, 1)
    await lab.restart()
    assert (await host.register(vm(1))).record.location.epoch == 2


async def test_its_addresses_are_free_again(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    await host.deregister(VM, 1)
    heir = vm(2)
    heir.interfaces[0].CopyFrom(vm(1).interfaces[0])
    assert (await host.register(heir)).outcome == pb.REGISTER_OUTCOME_CREATED
