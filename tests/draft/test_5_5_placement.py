"""5.5 without a destination: where a VM goes, and every reason against a host."""

from __future__ import annotations

from common.errors import Reason
from common.pb.vsignal.v1 import operations_pb2 as operations
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import deny_ssh, vm, vm_id


async def relocate(lab: Lab, **request: object) -> pb.RelocateResponse:
    return await lab.operator.signaling.Relocate(pb.RelocateRequest(vm_id=VM, **request))


async def test_the_least_loaded_host_that_fits_is_chosen(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1))
    for number, memory in ((2, 2_048), (3, 8_192), (4, 16_384)):
        host = await lab.agent(
            f"host-{number}", capacity=types.Resources(vcpus=8, memory_mib=memory)
        )
        await host.register(vm(number))
    weak = await lab.agent("host-5", capabilities=[types.CAPABILITY_ACL])
    with lab.nothing_changes():
        assert (await relocate(lab, plan_only=True)).destination == "host-4"
    reply = await relocate(lab)
    assert reply.destination == reply.operation.destination == "host-4"
    assert weak.vms == {}


async def test_a_plan_lists_every_objection(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1, profile=deny_ssh()), types.VM_STATE_PAUSED)
    await lab.agent(
        "host-2",
        capacity=types.Resources(vcpus=1, memory_mib=256),
        hypervisor="libvirt",
        migration_uri="",
        capabilities=[types.CAPABILITY_ANTI_SPOOFING],
    )
    with lab.nothing_changes():
        plan = await relocate(lab, destination="host-2", plan_only=True)
    assert not plan.HasField("operation")
    assert sorted(o.reason for o in plan.objections) == sorted(
        [
            Reason.NOT_RUNNING.name,
            Reason.INCOMPATIBLE_HOST.name,  # no migration address
            Reason.INCOMPATIBLE_HOST.name,  # another hypervisor
            Reason.NO_CAPACITY.name,
            Reason.NOT_ENFORCEABLE.name,
        ]
    )
    refusal = await refusal_of(relocate(lab, destination="host-2"))
    assert len(refusal.evidence) == 5 and refusal.reason is Reason.NOT_RUNNING


async def test_a_plan_says_for_each_host_why_it_will_not_do(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await source.register(vm(1))
    for number in (2, 3):
        await lab.agent(f"host-{number}", capabilities=[])
    plan = await relocate(lab, plan_only=True)
    assert [(o.reason, o.server_id) for o in plan.objections] == [
        (Reason.NO_DESTINATION.name, ""),
        (Reason.NOT_ENFORCEABLE.name, "host-2"),
        (Reason.NOT_ENFORCEABLE.name, "host-3"),
    ]


async def test_what_is_on_its_way_counts_as_load(lab: Lab) -> None:
    move = await Move.ready(lab, capacity=types.Resources(vcpus=8, memory_mib=1_000))
    await move.begin()
    await move.source.register(vm(2))
    request = pb.RelocateRequest(vm_id=vm_id(2), destination="host-2")
    refusal = await refusal_of(lab.operator.signaling.Relocate(request))
    assert refusal.reason is Reason.NO_CAPACITY
    assert "488 of 1000 MiB" in refusal.message


async def test_operations_are_listed_newest_first_in_pages(lab: Lab) -> None:
    source = await lab.agent("host-1")
    await lab.agent("host-2")
    for number in (1, 2, 3):
        await source.register(vm(number))
        request = pb.RelocateRequest(vm_id=vm_id(number), destination="host-2")
        await lab.operator.signaling.Relocate(request)
    listed, token = [], ""
    for _ in range(2):
        page = operations.ListOperationsRequest(page_size=2, page_token=token, active_only=True)
        answer = await lab.operator.operations.List(page)
        listed += [o.vm_id for o in answer.operations]
        token = answer.next_page_token
    assert sorted(listed) == [vm_id(1), vm_id(2), vm_id(3)] and token == ""
