"""Bad input: a clear refusal that names the field, and nothing changes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from common.errors import Reason
from common.pb.vsignal.v1 import inventory_pb2 as inventory
from common.pb.vsignal.v1 import session_pb2 as session
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.agent import RUNNING, Agent
from tests.support.calls import refusal_of
from tests.support.lab import Lab
from tests.support.moving import VM, Move
from tests.support.nouns import deny_ssh, interface, ip, mac, vm, vm_id

PERMIT, INGRESS = types.ACTION_PERMIT, types.DIRECTION_INGRESS
SSH = types.PortRange(first=22, last=22)


@pytest.fixture
async def host(lab: Lab) -> Agent:
    return await lab.agent("host-1")


def nic(**said: Any) -> types.Vm:
    return vm(1, interfaces=[interface(1, **said)])


def rule(**said: Any) -> types.Vm:
    ruled = types.AclRule(**{"action": PERMIT, "direction": INGRESS} | said)
    return vm(1, profile=types.Profile(acl=types.Acl(rules=[ruled])))


RULE = "vm.profile.acl.rules[0]"
MALFORMED: list[tuple[types.Vm, str]] = [
    (vm(1, vm_id="one"), "vm.vm_id"),
    (vm(1, name="x" * 256), "vm.name"),
    (vm(1, tenant="Blue", interfaces=[interface(1)]), "vm.tenant"),
    (vm(1, group="web_1"), "vm.group"),
    (nic(mac="02:00:00:00:00"), "vm.interfaces[0].mac"),
    (nic(mac=""), "vm.interfaces[0].mac"),
    (nic(mac="01:00:5e:00:00:01"), "vm.interfaces[0].mac"),
    (nic(mac="ff:ff:ff:ff:ff:ff"), "vm.interfaces[0].mac"),
    (nic(mac="00:00:00:00:00:00"), "vm.interfaces[0].mac"),
    (nic(ips=["10.0.0.1", "10.0.0.256"]), "vm.interfaces[0].ips[1]"),
    (nic(ips=["224.0.0.1"]), "vm.interfaces[0].ips[0]"),
    (nic(ips=["0.0.0.0"]), "vm.interfaces[0].ips[0]"),
    (nic(ips=["fe80::1%eth0"]), "vm.interfaces[0].ips[0]"),
    (nic(ips=[ip(n) for n in range(1, 66)]), "vm.interfaces[0].ips"),
    (nic(vni=2**24), "vm.interfaces[0].vni"),
    (nic(vni=7), "vm.interfaces[0].vni"),
    (vm(1, interfaces=[interface(n) for n in range(1, 34)]), "vm.interfaces"),
    (vm(1, interfaces=[interface(1), interface(1, vni=100)]), "vm.interfaces"),
    (vm(1, resources=types.Resources(vcpus=2**32 - 1)), "vm.resources.vcpus"),
    (vm(1, resources=types.Resources(memory_mib=2**63)), "vm.resources.memory_mib"),
    (vm(1, profile=types.Profile(vlan=4095)), "vm.profile.vlan"),
    (vm(1, profile=types.Profile(priority=8)), "vm.profile.priority"),
    (
        vm(1, profile=types.Profile(egress_rate=types.Rate(bits_per_second=1))),
        "vm.profile.egress_rate.bits_per_second",
    ),
    (
        vm(1, profile=types.Profile(acl=types.Acl(rules=[deny_ssh().acl.rules[0]] * 257))),
        "vm.profile.acl.rules",
    ),
    (rule(action=types.ACTION_UNSPECIFIED), f"{RULE}.action"),
    (rule(direction=7), f"{RULE}.direction"),
    (rule(name="x" * 64), f"{RULE}.name"),
    (rule(source_mac="02"), f"{RULE}.source_mac"),
    (rule(ethertype=5), f"{RULE}.ethertype"),
    (rule(source_prefix="10.0.0.1/8"), f"{RULE}.source_prefix"),
    (rule(protocol=256), f"{RULE}.protocol"),
    (rule(destination_ports=SSH), f"{RULE}.protocol"),
    (rule(protocol=1, destination_ports=SSH), f"{RULE}.protocol"),
    (rule(protocol=6, icmp_type=8), f"{RULE}.protocol"),
    (rule(protocol=1, icmp_code=0), f"{RULE}.icmp_code"),
    (
        rule(protocol=6, source_ports=types.PortRange(first=9, last=8)),
        f"{RULE}.source_ports",
    ),
    (rule(source_prefix="10.0.0.0/8", destination_prefix="2001:db8::/32"), RULE),
    (rule(source_prefix="10.0.0.0/8", protocol=58), RULE),
    (rule(source_prefix="10.0.0.0/8", ethertype=0x86DD), f"{RULE}.ethertype"),
    (rule(protocol=6, ethertype=0x0806), f"{RULE}.ethertype"),
]


@pytest.mark.parametrize(("said", "field"), MALFORMED, ids=[field for _, field in MALFORMED])
async def test_a_malformed_vm_is_refused_by_field(
    lab: Lab, host: Agent, said: types.Vm, field: str
) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(said))
    assert refusal.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refusal.violations] == [field]
    assert field in refusal.message


async def test_everything_that_is_wrong_is_said_at_once(lab: Lab, host: Agent) -> None:
    said = vm(1, vm_id="one", interfaces=[interface(1, mac="x", ips=["y"], vni=2**24)])
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(said, types.VM_STATE_UNSPECIFIED))
    assert [violation.field for violation in refusal.violations] == [
        "vm.vm_id",
        "vm.interfaces[0].ips[0]",
        "vm.interfaces[0].mac",
        "vm.interfaces[0].vni",
        "state",
    ]


@pytest.mark.parametrize("state", [types.VM_STATE_UNSPECIFIED, types.VM_STATE_LOST_NEEDS_FENCE, 99])
async def test_a_state_that_no_host_can_say(lab: Lab, host: Agent, state: int) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(vm(1), state))
    assert [violation.field for violation in refusal.violations] == ["state"]


async def test_an_epoch_that_could_not_grow_any_more(lab: Lab, host: Agent) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(vm(1), epoch=2**64 - 1))
    assert [violation.field for violation in refusal.violations] == ["epoch"]


@pytest.mark.parametrize(
    ("said", "reason", "field"),
    [
        (vm(1, tenant="green"), Reason.UNKNOWN_TENANT, "vm.tenant"),
        (vm(1, group="web"), Reason.UNKNOWN_GROUP, "vm.group"),
        (nic(network="lost"), Reason.UNKNOWN_NETWORK, "vm.interfaces[0].network"),
        (nic(network="red-net"), Reason.UNKNOWN_NETWORK, "vm.interfaces[0].network"),
        (nic(network="", vni=200), Reason.UNKNOWN_NETWORK, "vm.interfaces[0].network"),
    ],
)
async def test_what_nobody_declared_is_refused(
    lab: Lab, host: Agent, said: types.Vm, reason: Reason, field: str
) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(said))
    assert (refusal.reason, refusal.violations[0].field) == (reason, field)


@pytest.mark.parametrize("address", ["mac", "ips"])
async def test_a_held_claim_is_refused_with_evidence_and_one_alert(
    lab: Lab, host: Agent, address: str
) -> None:
    thief = await lab.agent("host-2")
    held = (await host.register(vm(1))).record
    said = vm(2)
    stolen = {"mac": mac(1)} if address == "mac" else {"ips": [ip(1)]}
    said.interfaces[0].CopyFrom(interface(2, **stolen))
    for _ in range(3):
        refusal = await refusal_of(thief.register(said))
        assert refusal.reason is Reason.CLAIM_HELD
        assert refusal.evidence == {
            "address": mac(1) if address == "mac" else ip(1),
            "vni": "100",
            "holder": VM,
            "holder_server": "host-1",
            "holder_epoch": "1",
            "holder_revision": str(held.revision),
            "claimant": vm_id(2),
            "claimant_server": "host-2",
        }
    assert await lab.record(VM) == held
    (alert,) = await lab.alerts()
    assert (alert.reason, alert.vm_id, alert.server_id) == ("CLAIM_HELD", vm_id(2), "host-2")
    assert dict(alert.evidence) == refusal.evidence
    assert alert.revision == lab.revision, "the alert is all that was written"


async def test_a_vserver_speaks_only_for_itself(lab: Lab, host: Agent) -> None:
    stub, other = host.client.signaling, "host-2"
    calls = [
        stub.Register(pb.RegisterRequest(vm=vm(1), state=1, server_id=other)),
        stub.Deregister(pb.DeregisterRequest(vm_id=VM, epoch=1, server_id=other)),
        stub.Report(pb.ReportRequest(server_id=other)),
        stub.SyncGroup(
            iter([pb.SyncGroupRequest(begin=pb.SyncGroupRequest.Begin(server_id=other))])
        ),
        host.client.session.Attach(
            iter([session.AgentMessage(hello=session.Hello(server={"server_id": other}))])
        ),
    ]
    with lab.nothing_changes():
        for call in calls:
            assert (await refusal_of(call)).reason is Reason.NOT_YOUR_SERVER


async def test_a_vserver_that_never_attached_registers_nothing(lab: Lab) -> None:
    stranger = lab.client("vserver/host-9")
    with lab.nothing_changes():
        call = stranger.signaling.Register(pb.RegisterRequest(vm=vm(1), state=1))
        assert (await refusal_of(call)).reason is Reason.UNKNOWN_SERVER


@pytest.mark.parametrize(
    "name",
    [
        *("", "root", "vserver/", "operator/Bob Smith", "tenant/Blue", "operator/al/root"),
        *("operator/al/view/admin", "watcher/nve", "watcher/nve/host/h1", "tenant/blue/red"),
    ],
)
async def test_a_caller_without_a_known_identity_gets_in_nowhere(lab: Lab, name: str) -> None:
    call = lab.client(name).inventory.ListTenants(inventory.ListTenantsRequest())
    assert (await refusal_of(call)).reason is Reason.UNIDENTIFIED


async def test_roles_are_kept_apart(lab: Lab, host: Agent) -> None:
    tenant = inventory.PutTenantRequest(tenant=types.Tenant(tenant_id="green"))
    watcher = lab.client("watcher/nve-1/tenant/blue")
    with lab.nothing_changes():
        for call in (
            host.client.inventory.PutTenant(tenant),
            watcher.inventory.PutTenant(tenant),
            host.client.signaling.Relocate(pb.RelocateRequest(vm_id=VM)),
            lab.operator.signaling.Register(pb.RegisterRequest(vm=vm(1), state=1)),
        ):
            assert (await refusal_of(call)).reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("host-1", Reason.SAME_SERVER),
        ("host-9", Reason.UNKNOWN_SERVER),
        ("host-2", Reason.SERVER_SILENT),
        ("host-3", Reason.NO_CAPACITY),
        ("Host 4", Reason.INVALID_FIELD),
    ],
)
async def test_a_destination_that_will_not_do(
    lab: Lab, host: Agent, destination: str, reason: Reason
) -> None:
    await host.register(vm(1))
    await lab.agent("host-3", capacity=types.Resources(vcpus=1, memory_mib=256))
    await (await lab.agent("host-2")).detach()
    await lab.restart()  # a vCenter that has just started takes nobody's word for being there
    with lab.nothing_changes():
        request = pb.RelocateRequest(vm_id=VM, destination=destination)
        refusal = await refusal_of(lab.operator.signaling.Relocate(request))
    assert refusal.reason is reason
    assert reason is Reason.INVALID_FIELD or destination in refusal.message


async def test_a_vm_that_is_moving_is_not_moved_again(lab: Lab) -> None:
    move = await Move.ready(lab)
    begun = await move.begin()
    with lab.nothing_changes():
        refusal = await refusal_of(move.begin())
    assert refusal.reason is Reason.ALREADY_MOVING
    assert begun.operation.operation_id in refusal.message


async def test_a_move_at_another_epoch_is_refused(lab: Lab) -> None:
    await Move.ready(lab)
    with lab.nothing_changes():
        request = pb.RelocateRequest(vm_id=VM, destination="host-2", epoch=2)
        refusal = await refusal_of(lab.operator.signaling.Relocate(request))
    assert (refusal.reason, refusal.evidence) == (Reason.STALE_EPOCH, {"epoch": "1"})


async def test_a_profile_that_the_host_cannot_enforce(lab: Lab, host: Agent) -> None:
    vlan = types.Profile(vlan=10)
    with lab.nothing_changes():
        refusal = await refusal_of(host.register(vm(1, profile=vlan)))
    assert refusal.reason is Reason.NOT_ENFORCEABLE
    assert refusal.evidence == {"server": "host-1", "missing": "vlan"}
    await host.register(vm(1))
    with lab.nothing_changes():
        request = inventory.SetVmProfileRequest(vm_id=VM, profile=vlan)
        refusal = await refusal_of(lab.operator.inventory.SetVmProfile(request))
    assert refusal.reason is Reason.NOT_ENFORCEABLE


async def test_a_message_over_the_size_limit_is_refused_and_the_server_lives_on(
    lab: Lab, host: Agent
) -> None:
    big = pb.LookupRequest(keys=[types.VmKey(vm_id="x" * 1_000_000)] * 5)
    async with grpc.aio.insecure_channel(  # a client without our own limits
        f"unix:{lab.folder}/vcenter.sock", options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        lookup = type(lab.operator)(channel, "operator/mallory").signaling.Lookup
        with lab.nothing_changes(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await lookup(big)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await host.register(vm(1))).record.location.epoch == 1


def put_network(**said: Any) -> inventory.PutNetworkRequest:
    network = {"network_id": "extra", "tenant": "blue", "vnis": [300]} | said
    return inventory.PutNetworkRequest(network=types.VirtualNetwork(**network))


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (put_network(vnis=[]), Reason.INVALID_FIELD, "network.vnis"),
        (put_network(vnis=[300, 300]), Reason.INVALID_FIELD, "network.vnis"),
        (put_network(vnis=[0]), Reason.INVALID_FIELD, "network.vnis[0]"),
        (put_network(vnis=[300, 2**24]), Reason.INVALID_FIELD, "network.vnis[1]"),
        (put_network(network_id="A B"), Reason.INVALID_FIELD, "network.network_id"),
        (put_network(tenant="green"), Reason.UNKNOWN_TENANT, None),
        (put_network(vnis=[200]), Reason.VNI_TAKEN, None),
        (put_network(network_id="red-net"), Reason.IN_USE, None),
    ],
)
async def test_a_network_that_cannot_be(
    lab: Lab, request_: inventory.PutNetworkRequest, reason: Reason, field: str | None
) -> None:
    with lab.nothing_changes():
        refusal = await refusal_of(lab.operator.inventory.PutNetwork(request_))
    assert refusal.reason is reason
    assert [v.field for v in refusal.violations] == ([field] if field else [])


async def test_what_is_in_use_is_not_deleted(lab: Lab, host: Agent) -> None:
    await lab.group("web")
    await host.register(vm(1, group="web"))
    put = lab.operator.inventory
    with lab.nothing_changes():
        for call in (
            put.DeleteTenant(inventory.DeleteTenantRequest(tenant_id="blue")),
            put.DeleteNetwork(inventory.DeleteNetworkRequest(network_id="blue-net")),
            put.DeleteGroup(inventory.DeleteGroupRequest(tenant="blue", name="web")),
            put.PutNetwork(put_network(network_id="blue-net", vnis=[300])),
        ):
            assert (await refusal_of(call)).reason is Reason.IN_USE


async def test_assigning_an_interface_that_is_not_there(lab: Lab, host: Agent) -> None:
    await host.register(vm(1))
    attachment = inventory.AssignVmRequest.Attachment(mac=mac(9), network="blue-net")
    with lab.nothing_changes():
        request = inventory.AssignVmRequest(vm_id=VM, interfaces=[attachment])
        refusal = await refusal_of(lab.operator.inventory.AssignVm(request))
    assert [v.field for v in refusal.violations] == ["interfaces"]


async def test_a_stream_that_does_not_begin_with_hello(lab: Lab, host: Agent) -> None:
    message = session.AgentMessage(answer=session.Answer(state=RUNNING))
    with lab.nothing_changes():
        for messages in ([message], []):
            refusal = await refusal_of(host.client.session.Attach(iter(messages)))
            assert [v.field for v in refusal.violations] == ["message"]


async def test_nonsense_in_a_session_does_not_end_it(lab: Lab, host: Agent) -> None:
    await host.register(vm(1))
    with lab.nothing_changes():
        await host.say(hello=session.Hello(server=host.server))
        await host.say()
        await host.say(answer=session.Answer(ask_id="?", state=77))
        await host.say(report=pb.ReportRequest(vms=[pb.VmStatus(vm_id="?")]))
        await host.say(outcome=session.MoveOutcome(step=9))
        await host.say(progress=session.MoveProgress(operation_id="?"))
        await lab.heard(host)
    assert host.attached
