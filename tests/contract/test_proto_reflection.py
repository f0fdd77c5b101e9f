"""What grpcurl does: ask the server for its schema, then call by it. No generated code here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from common.errors import Reason
from common.rpc import identity
from common.status import refusal_from_call
from tests.support.lab import Lab, running_lab
from vcenter.wire.rules import RULES
from vcenter.wire.server import SERVICES

VM, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
NOBODY = "00000000-0000-4000-8000-00000000ffff"
HOST = {"capabilities": ["CAPABILITY_ANTI_SPOOFING"], "hypervisor": "memory"}
NIC = {"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1"], "network": "lan"}

# `grpcurl -d`: caller, method, message(s), and the reason if it is refused. One story, in order.
STORY: list[tuple[str, str, Any, Reason | None]] = [
    ("operator/a", "Inventory/PutTenant", {"tenant": {"tenantId": "acme"}}, None),
    (
        "operator/a",
        "Inventory/PutNetwork",
        {"network": {"networkId": "lan", "tenant": "acme", "vnis": [5]}},
        None,
    ),
    (
        "operator/a",
        "Inventory/PutGroup",
        {"group": {"tenant": "acme", "name": "web", "profile": {"antiSpoofing": True}}},
        None,
    ),
    ("operator/a", "Inventory/ListTenants", {}, None),
    ("operator/a", "Inventory/ListNetworks", {"tenant": "acme"}, None),
    ("operator/a", "Inventory/ListGroups", {}, None),
    ("operator/a", "Inventory/GetGroup", {"tenant": "acme", "name": "web"}, None),
    ("vserver/h1", "Session/Attach", [{"hello": {"server": HOST | {"serverId": "h1"}}}], None),
    (
        "vserver/h1",
        "Signaling/Register",
        {
            "vm": {"vmId": VM, "tenant": "acme", "interfaces": [NIC]},
            "state": "VM_STATE_RUNNING",
        },
        None,
    ),
    (
        "vserver/h1",
        "Signaling/SyncGroup",
        [
            {"begin": {"tenant": "acme", "group": "web"}},
            {"chunk": {"members": [{"vm": {"vmId": OTHER}, "state": "VM_STATE_SHUT_OFF"}]}},
        ],
        None,
    ),
    ("vserver/h1", "Signaling/Lookup", {"keys": [{"vmId": VM}]}, None),
    ("vserver/h1", "Signaling/LookupStream", [{"keys": [{"vmId": VM}]}], None),
    (
        "vserver/h1",
        "Signaling/Report",
        {"vms": [{"vmId": VM, "epoch": 1, "state": "VM_STATE_RUNNING"}]},
        None,
    ),
    ("operator/a", "Signaling/Relocate", {"vmId": VM, "planOnly": True}, None),
    ("operator/a", "Signaling/Replicate", {"vmId": VM, "near": "h1", "planOnly": True}, None),
    ("operator/a", "Directory/Lookup", {"keys": [{"ip": {"vni": 5, "ip": "10.0.0.1"}}]}, None),
    ("operator/a", "Directory/BatchLookup", {"batches": [{"keys": [{"vmId": NOBODY}]}]}, None),
    ("watcher/w/tenant/acme", "Directory/GetVm", {"key": {"vmId": VM}}, None),
    ("watcher/w/tenant/acme", "Directory/ListVms", {"tenant": "acme", "pageSize": 1}, None),
    ("watcher/w/tenant/acme", "Directory/CountVms", {"network": "lan"}, None),
    ("operator/a/view", "Directory/ListServers", {}, None),
    ("operator/a", "Directory/ListAlerts", {}, None),
    (
        "operator/a",
        "Directory/WhereWas",
        {"key": {"vmId": VM}, "at": "2100-01-01T00:00:00Z"},
        None,
    ),
    ("operator/a", "Directory/VmHistory", {"vmId": VM, "limit": 1}, None),
    ("watcher/w/tenant/acme", "Directory/Watch", {"tenant": "acme"}, None),
    ("operator/a/view", "Directory/ListAudit", {"refusedOnly": True}, None),
    ("domain/east", "Federation/ListDomains", {"tree": True}, None),
    ("domain/east", "Federation/Members", {}, None),
    ("domain/east", "Federation/Twins", {}, None),
    ("operator/a", "Federation/Tell", {"domain": "mars"}, Reason.UNKNOWN_DOMAIN),
    ("operator/alice", "Federation/PlanArrivals", {}, Reason.FORBIDDEN),  # vCenters ask it for her
    ("operator/alice", "Federation/Carry", {}, Reason.FORBIDDEN),
    ("operator/a", "Operations/List", {}, None),
    ("operator/a", "Operations/Get", {"operationId": NOBODY}, Reason.UNKNOWN_OPERATION),
    ("operator/a", "Operations/Wait", {"operationId": NOBODY}, Reason.UNKNOWN_OPERATION),
    ("operator/a", "Operations/Follow", {"operationId": NOBODY}, Reason.UNKNOWN_OPERATION),
    ("operator/a", "Operations/Cancel", {"operationId": NOBODY}, Reason.UNKNOWN_OPERATION),
    ("operator/a", "Operations/Fence", {"serverId": "nobody"}, Reason.UNKNOWN_SERVER),
    ("operator/a", "Operations/Settle", {"vmId": NOBODY}, Reason.UNKNOWN_VM),
    ("operator/a", "Operations/Promote", {"vmId": VM}, Reason.NO_STANDBY),
    (
        "operator/a",
        "Inventory/AssignVm",
        {"vmId": VM, "tenant": "acme", "group": "web"},
        None,
    ),
    ("operator/a", "Inventory/ThawVm", {"key": {"vmId": VM}}, Reason.NOT_FROZEN),
    ("operator/a", "Inventory/SetVmProfile", {"vmId": VM, "profile": {}}, None),
    ("operator/a", "Inventory/CordonServer", {"serverId": "h1", "cordoned": True}, None),
    ("operator/a", "Inventory/DeleteGroup", {"tenant": "acme", "name": "web"}, Reason.IN_USE),
    ("operator/a", "Inventory/DeleteNetwork", {"networkId": "lan"}, Reason.IN_USE),
    ("operator/a", "Inventory/DeleteTenant", {"tenantId": "acme"}, Reason.IN_USE),
    ("vserver/h1", "Signaling/Deregister", {"vmId": VM, "epoch": 1}, None),
    ("operator/a", "Enrolment/Invite", {"identity": "vserver/h2"}, Reason.NO_CA),
    ("vserver/h1", "Enrolment/Renew", {}, Reason.NO_CA),
    ("operator/a", "Enrolment/Revoke", {"serial": "0A"}, None),
    ("operator/a", "Enrolment/ListCertificates", {}, None),
]


class Grpcurl:
    """Knows nothing but what the server says of itself."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._database = ProtoReflectionDescriptorDatabase(grpc.insecure_channel(target))
        self._pool = DescriptorPool(self._database)
        self.services: list[str] = []
        self.methods: dict[str, MethodDescriptor] = {}

    async def discover(self) -> None:
        await asyncio.to_thread(self._discover)

    def _discover(self) -> None:
        self.services = list(self._database.get_services())
        for name in self.services:
            if name.startswith("vsignal."):
                service = self._pool.FindServiceByName(name)
                self.methods |= {f"{service.name}/{m.name}": m for m in service.methods}

    async def call(self, caller: str, method: str, *said: dict[str, Any]) -> dict[str, Any]:
        """The (first) reply, as JSON."""
        described = self.methods[method]
        kind = (
            ("stream" if described.client_streaming else "unary")
            + "_"
            + ("stream" if described.server_streaming else "unary")
        )
        make = getattr(self._channel, kind)(
            f"/{described.containing_service.full_name}/{described.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        requests = [ParseDict(s, GetMessageClass(described.input_type)()) for s in said]
        asked = _stream(requests) if described.client_streaming else requests[0]
        call = make(asked, metadata=identity(caller), timeout=10)
        if not described.server_streaming:
            return MessageToDict(await call)
        reply = await call.read()
        call.cancel()
        return MessageToDict(reply) if reply is not grpc.aio.EOF else {}

    async def close(self) -> None:
        await self._channel.close()


async def _stream(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with running_lab() as lab:
        yield lab


@pytest.fixture
async def grpcurl(lab: Lab) -> AsyncIterator[Grpcurl]:
    client = Grpcurl(f"unix:{lab.folder}/vcenter.sock")
    await client.discover()
    yield client
    await client.close()


async def test_the_server_lists_every_service(grpcurl: Grpcurl) -> None:
    others = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert set(grpcurl.services) == {*SERVICES, *others}
    assert len(SERVICES) == 7


async def test_every_method_has_a_rule_and_every_rule_a_method(grpcurl: Grpcurl) -> None:
    assert set(grpcurl.methods) == set(RULES)


async def test_every_method_is_called_in_a_story(grpcurl: Grpcurl) -> None:
    assert {method for _, method, _, _ in STORY} == set(grpcurl.methods)
    for caller, method, said, refused in STORY:
        messages = said if isinstance(said, list) else [said]
        if refused is None:
            await grpcurl.call(caller, method, *messages)
            continue
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await grpcurl.call(caller, method, *messages)
        refusal = refusal_from_call(caught.value)
        assert refusal is not None, (method, caught.value)
        assert refusal.reason is refused, method


async def test_an_empty_message_is_answered_or_refused_with_a_reason(grpcurl: Grpcurl) -> None:
    for method in grpcurl.methods:
        for role in ("operator/a", "vserver/h1", "watcher/w/network/lan", "tenant/acme", "nobody"):
            try:
                await grpcurl.call(role, method, {})
            except grpc.aio.AioRpcError as error:
                refusal = refusal_from_call(error)
                assert refusal is not None, (method, role, error)
                assert refusal.reason is not Reason.UNIMPLEMENTED, method


async def test_each_service_says_that_it_serves(lab: Lab) -> None:
    health = health_pb2_grpc.HealthStub(lab.channel)
    for name in ("", *SERVICES):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="vsignal.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
