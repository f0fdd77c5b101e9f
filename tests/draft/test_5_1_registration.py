"""5.1, VM Configuration Registration (A13): create the profile, or update it if it exists."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import ABSENT, RUNNING, SILENT, UNKNOWN
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.nouns import deny_ssh, interface, vm, vm_id

VM = vm_id(1)


async def test_a_vm_that_is_not_known_gets_a_profile(lab: Lab) -> None:
    await lab.group(profile=deny_ssh())
    host = await lab.agent("host-1")
    reply = await host.register(vm(1, group="web"))
    assert reply.outcome == pb.REGISTER_OUTCOME_CREATED
    assert reply.effective_profile == deny_ssh()
    record = reply.record
    assert (record.location.server_id, record.location.epoch) == ("host-1", 1)
    assert record.vm.interfaces[0].vni == 100, "the network's only VNI"
    assert record.revision == lab.revision
    assert await lab.record(VM) == record


async def test_a_vm_that_is_known_is_updated(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    reply = await host.register(vm(1, name="renamed", profile=deny_ssh()))
    assert reply.outcome == pb.REGISTER_OUTCOME_UPDATED
    record = await lab.record(VM)
    assert (record.vm.name, record.location.epoch) == ("renamed", 1)
    assert record.vm.profile == deny_ssh()


async def test_saying_it_again_changes_nothing(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    with lab.nothing_changes():
        reply = await host.register(vm(1), epoch=1)
    assert reply.outcome == pb.REGISTER_OUTCOME_UNCHANGED
    assert reply.record == await lab.record(VM)


async def test_what_the_host_does_not_say_stays_as_the_operator_set_it(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    bare = types.Interface(mac=vm(1).interfaces[0].mac)
    reply = await host.register(types.Vm(vm_id=VM, interfaces=[bare]))
    assert reply.outcome == pb.REGISTER_OUTCOME_UNCHANGED
    assert reply.record.vm.tenant == "blue"


async def test_the_host_hears_what_it_should_do_with_the_vm(lab: Lab) -> None:
    host = await lab.agent("host-1")
    reply = await host.register(vm(1, profile=deny_ssh()))
    await host.until(lambda: VM in host.vms)
    wanted = host.vms[VM]
    assert wanted.owned and wanted.epoch == 1
    assert wanted.profile == deny_ssh()
    assert wanted.profile_hash == reply.record.profile_hash


async def test_a_vm_without_a_tenant_is_registered_and_stays_closed(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1, tenant="", interfaces=[interface(1)]))
    await host.until(lambda: VM in host.vms)
    assert host.vms[VM].closed_reason == Reason.UNASSIGNED.name
    assert not (await lab.record(VM)).vm.interfaces[0].vni


async def test_an_incoming_vm_is_noted_and_owned_by_nobody(lab: Lab) -> None:
    host = await lab.agent("host-1")
    with lab.nothing_changes():
        reply = await host.register(vm(1), types.VM_STATE_INCOMING)
    assert reply.outcome == pb.REGISTER_OUTCOME_INCOMING
    assert not reply.HasField("record")


# ---- a VM that is known elsewhere has arrived ----


async def test_both_hosts_are_asked_before_an_arrival_is_believed(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    old.truth[VM], new.truth[VM] = ABSENT, RUNNING
    reply = await new.register(vm(1))
    assert [ask.vm_id for ask in old.asked] == [ask.vm_id for ask in new.asked] == [VM]
    assert reply.outcome == pb.REGISTER_OUTCOME_ARRIVED
    assert (reply.record.location.server_id, reply.record.location.epoch) == ("host-2", 2)
    assert reply.came_from.server_id == "host-1"
    assert reply.came_from.management_address == old.server.management_address
    assert reply.came_from.epoch == 1
    await old.until_gone(VM)


async def test_an_owner_that_lets_go_late_is_asked_again(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    old.truth[VM] = new.truth[VM] = RUNNING
    arriving = asyncio.create_task(new.register(vm(1)))
    await old.until(lambda: old.asked)
    old.truth[VM] = ABSENT
    assert (await arriving).outcome == pb.REGISTER_OUTCOME_ARRIVED


async def test_running_in_two_places_is_refused_and_shown(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    before = await lab.record(VM)
    old.truth[VM] = new.truth[VM] = RUNNING
    for _ in range(2):
        refusal = await refusal_of(new.register(vm(1)))
        assert refusal.reason is Reason.RUNNING_IN_TWO_PLACES
        assert refusal.evidence == {"owner": "host-1", "claimant": "host-2", "epoch": "1"}
    assert await lab.record(VM) == before
    (alert,) = await lab.alerts()
    assert alert.reason == Reason.RUNNING_IN_TWO_PLACES.name
    assert alert.severity == types.SEVERITY_CRITICAL
    assert alert.evidence["claimant"] == "host-2"


@pytest.mark.parametrize("answer", [UNKNOWN, SILENT])
async def test_an_owner_that_cannot_say_leaves_everything_as_it_is(
    lab: Lab, answer: int | None
) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    old.truth[VM], new.truth[VM] = answer, RUNNING
    with lab.nothing_changes():
        refusal = await refusal_of(new.register(vm(1)))
    assert refusal.reason is Reason.OWNER_SILENT
    assert refusal.retry_after


async def test_an_owner_that_is_not_attached_cannot_be_asked(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    await old.detach()
    with lab.nothing_changes():
        refusal = await refusal_of(new.register(vm(1)))
    assert (refusal.reason, refusal.evidence) == (Reason.OWNER_SILENT, {"owner": "host-1"})
    assert refusal.retry_after


async def test_a_claimant_that_does_not_run_it_gets_nothing(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    old.truth[VM] = new.truth[VM] = ABSENT
    with lab.nothing_changes():
        assert (await refusal_of(new.register(vm(1)))).reason is Reason.NOT_RUNNING
        defined = new.register(vm(1), types.VM_STATE_SHUT_OFF)
        assert (await refusal_of(defined)).reason is Reason.NOT_OWNER


async def test_an_older_epoch_is_refused(lab: Lab) -> None:
    old, new = await lab.agent("host-1"), await lab.agent("host-2")
    await old.register(vm(1))
    new.truth[VM] = RUNNING
    await new.register(vm(1))
    with lab.nothing_changes():
        for host in (old, new):
            refusal = await refusal_of(host.register(vm(1, name="late"), epoch=1))
            assert (refusal.reason, refusal.evidence) == (Reason.STALE_EPOCH, {"epoch": "2"})


async def test_two_that_claim_an_arrival_at_once_do_not_both_get_it(lab: Lab) -> None:
    old, one, two = [await lab.agent(f"host-{n}") for n in (1, 2, 3)]
    await old.register(vm(1))
    one.truth[VM] = two.truth[VM] = RUNNING
    replies = await asyncio.gather(one.register(vm(1)), two.register(vm(1)), return_exceptions=True)
    assert sum(isinstance(reply, pb.RegisterResponse) for reply in replies) == 1
    assert (await lab.record(VM)).location.epoch == 2
