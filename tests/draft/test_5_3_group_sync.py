"""5.3, VM Group Synchronization (A15, A5): bulk registration of a group, create or update."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import inventory_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import Client, refusal_of
from tests.support.lab import Lab
from tests.support.nouns import deny_ssh, interface, rate, vm, vm_id

CREATED, UNCHANGED = pb.REGISTER_OUTCOME_CREATED, pb.REGISTER_OUTCOME_UNCHANGED
UPDATED = pb.REGISTER_OUTCOME_UPDATED


def begin(profile: types.Profile | None = None, group: str = "web") -> pb.SyncGroupRequest:
    return pb.SyncGroupRequest(
        begin=pb.SyncGroupRequest.Begin(tenant="blue", group=group, profile=profile)
    )


def member(number: int, **more: object) -> pb.RegisterRequest:
    """Tenant and group are the sync's."""
    said = vm(number, tenant="", interfaces=[interface(number)], **more)
    return pb.RegisterRequest(vm=said, state=types.VM_STATE_RUNNING)


def chunk(*members: pb.RegisterRequest, leaving: Sequence[str] = ()) -> pb.SyncGroupRequest:
    return pb.SyncGroupRequest(chunk=pb.SyncGroupRequest.Chunk(members=members, leaving=leaving))


async def sync(client: Client, *messages: pb.SyncGroupRequest) -> list[pb.SyncGroupResponse]:
    return [reply async for reply in client.signaling.SyncGroup(iter(messages))]


async def test_a_bulk_registration_creates_the_group_and_its_members(lab: Lab) -> None:
    host = await lab.agent("host-1")
    first, second = [[member(n) for n in part] for part in (range(1, 301), range(301, 401))]
    replies = await sync(host.client, begin(deny_ssh()), chunk(*first), chunk(*second))
    assert [reply.members_done for reply in replies] == [300, 400]
    results = [result for reply in replies for result in reply.results]
    assert [result.vm_id for result in results] == [vm_id(n) for n in range(1, 401)]
    assert {(result.outcome, result.epoch) for result in results} == {(CREATED, 1)}
    record = await lab.record(vm_id(400))
    assert (record.vm.tenant, record.vm.group) == ("blue", "web")
    await host.until(lambda: len(host.vms) == 400)
    assert all(wanted.profile == deny_ssh() for wanted in host.vms.values())


async def test_a_chunk_is_answered_when_it_is_durable(lab: Lab) -> None:
    host = await lab.agent("host-1")
    call = host.client.signaling.SyncGroup()
    await call.write(begin())
    await call.write(chunk(member(1)))
    reply = await call.read()
    call.cancel()
    await lab.restart()
    assert (await lab.record(vm_id(1))).revision <= reply.revision


async def test_after_a_cut_it_is_begun_again(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await sync(host.client, begin(deny_ssh()), chunk(member(1)))
    (reply,) = await sync(host.client, begin(deny_ssh()), chunk(member(1), member(2)))
    assert [result.outcome for result in reply.results] == [UNCHANGED, CREATED]
    with lab.nothing_changes():
        await sync(host.client, begin(), chunk(member(1), member(2)))


async def test_a_refused_member_does_not_stop_the_others(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(9))
    thief = member(1)
    thief.vm.interfaces[0].CopyFrom(vm(9).interfaces[0])
    broken = member(2)
    broken.vm.interfaces[0].mac = "02:00"
    stranger = member(3)
    stranger.vm.group = "db"
    (reply,) = await sync(host.client, begin(), chunk(thief, broken, stranger, member(4)))
    assert [result.reason for result in reply.results] == [
        Reason.CLAIM_HELD.name,
        Reason.INVALID_FIELD.name,
        Reason.INVALID_FIELD.name,
        "",
    ]
    assert reply.results[3].outcome == CREATED
    assert "vm.interfaces[0].mac" in reply.results[1].message


async def test_a_member_that_leaves_stays_registered_without_the_profile(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await sync(host.client, begin(deny_ssh()), chunk(member(1)))
    await host.until(lambda: vm_id(1) in host.vms)
    (reply,) = await sync(host.client, begin(), chunk(leaving=[vm_id(1), vm_id(7)]))
    assert reply.results[0].outcome == UPDATED
    assert reply.results[1].reason == Reason.UNKNOWN_VM.name
    assert (await lab.record(vm_id(1))).vm.group == ""
    await host.until(lambda: host.vms[vm_id(1)].profile == types.Profile())


async def test_only_the_owner_takes_a_member_out(lab: Lab) -> None:
    host, other = await lab.agent("host-1"), await lab.agent("host-2")
    await sync(host.client, begin(), chunk(member(1)))
    (reply,) = await sync(other.client, begin(), chunk(leaving=[vm_id(1)]))
    assert reply.results[0].reason == Reason.NOT_OWNER.name
    (reply,) = await sync(lab.operator, begin(), chunk(leaving=[vm_id(1)]))
    assert reply.results[0].outcome == UPDATED


async def test_an_operator_registers_nothing(lab: Lab) -> None:
    await lab.agent("host-1")
    (reply,) = await sync(lab.operator, begin(), chunk(member(1)))
    assert reply.results[0].reason == Reason.FORBIDDEN.name


async def test_a_new_profile_reaches_every_host_with_a_member(lab: Lab) -> None:
    one, two = await lab.agent("host-1"), await lab.agent("host-2")
    await sync(one.client, begin(deny_ssh()), chunk(member(1)))
    await sync(two.client, begin(), chunk(member(2)))
    before = (await lab.record(vm_id(1))).profile_hash
    slower = types.Profile(ingress_rate=rate(1))
    await sync(one.client, begin(slower))
    after = (await lab.record(vm_id(1))).profile_hash
    assert after != before
    for host, number in ((one, 1), (two, 2)):
        await host.until(lambda h=host, n=number: h.vms[vm_id(n)].profile_hash == after)
        assert host.vms[vm_id(number)].profile == slower


async def test_a_vm_keeps_its_own_profile_over_the_groups(lab: Lab) -> None:
    host = await lab.agent("host-1")
    own = types.Profile(ingress_rate=rate(5))
    await sync(host.client, begin(deny_ssh()), chunk(member(1, profile=own)))
    await host.until(lambda: vm_id(1) in host.vms)
    wanted = host.vms[vm_id(1)].profile
    assert (wanted.acl, wanted.ingress_rate) == (deny_ssh().acl, rate(5))


async def test_a_profile_that_a_members_host_cannot_enforce_is_refused(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await sync(host.client, begin(deny_ssh()), chunk(member(1)))
    with lab.nothing_changes():
        refusal = await refusal_of(sync(host.client, begin(types.Profile(vlan=7))))
    assert refusal.reason is Reason.NOT_ENFORCEABLE
    assert refusal.evidence == {"server": "host-1", "missing": "vlan"}
    request = inventory_pb2.GetGroupRequest(tenant="blue", name="web")
    assert (await lab.operator.inventory.GetGroup(request)).profile == deny_ssh()


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([chunk(member(1))], "message"),
        ([begin(), begin()], "message"),
        ([begin(), pb.SyncGroupRequest()], "message"),
        ([begin(group="")], "begin.group"),
        ([begin(types.Profile(vlan=5000))], "begin.profile.vlan"),
    ],
)
async def test_a_malformed_stream_is_refused(
    lab: Lab, messages: list[pb.SyncGroupRequest], field: str
) -> None:
    host = await lab.agent("host-1")
    await lab.group("web")
    with lab.nothing_changes():
        refusal = await refusal_of(sync(host.client, *messages))
    assert [violation.field for violation in refusal.violations] == [field]


async def test_a_chunk_has_at_most_a_thousand_members(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await lab.group("web")
    with lab.nothing_changes():
        big = chunk(*[member(n) for n in range(1001)])
        assert (await refusal_of(sync(host.client, begin(), big))).reason is Reason.TOO_LARGE
