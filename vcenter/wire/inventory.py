"""What operators declare. Every change is a command; every list is read from the table."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.profile import from_profile
from common.codec.server import (
    from_group,
    from_network,
    from_tenant,
    to_group,
    to_network,
    to_server,
    to_tenant,
)
from common.codec.vm import from_key, optional, to_record
from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.identity import parse_ip, parse_mac, parse_name, parse_vm_id, parse_vni
from common.model.server import Group, Tenant, VirtualNetwork
from common.model.vm import Interface
from common.pb.vsignal.v1 import inventory_pb2 as pb
from common.pb.vsignal.v1 import inventory_pb2_grpc, types_pb2
from vcenter.core import dispute, indexes, inventory, servers
from vcenter.core.command import Command
from vcenter.core.sync_group import PutGroup
from vcenter.wire.context import Servicer
from vcenter.wire.guard import unary
from vcenter.wire.sight import sees


def _put(group: Group) -> PutGroup:
    return PutGroup(group.tenant, group.name, group.profile, anti_affinity=group.anti_affinity)


class InventoryService(Servicer, inventory_pb2_grpc.InventoryServicer):
    service = "Inventory"

    async def _delete(self, command: Command) -> pb.DeleteResponse:
        return pb.DeleteResponse(revision=(await self.ledger.submit(command)).revision)

    def _record(self, vm_id: str) -> types_pb2.VmRecord:
        record = self.table.must_vm(vm_id)
        return to_record(record, self.table.profile_of(record.vm).digest())

    @unary
    async def PutTenant(self, request: pb.PutTenantRequest, caller: Caller) -> types_pb2.Tenant:
        check = Checker()
        tenant = from_tenant(check, request.tenant)
        check.done()
        await self.ledger.submit(inventory.PutTenant(tenant.tenant_id))
        return to_tenant(self.table.tenant(tenant.tenant_id) or tenant)

    @unary
    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, caller: Caller
    ) -> pb.DeleteResponse:
        return await self._delete(inventory.DeleteTenant(request.tenant_id))

    @unary
    async def ListTenants(
        self, request: pb.ListTenantsRequest, caller: Caller
    ) -> pb.ListTenantsResponse:
        tenants = [
            to_tenant(t)
            for t in self.table.all(Tenant, indexes.TENANTS)
            if sees(self.table, caller, t)
        ]
        return pb.ListTenantsResponse(tenants=tenants, revision=self.table.revision)

    @unary
    async def PutNetwork(
        self, request: pb.PutNetworkRequest, caller: Caller
    ) -> types_pb2.VirtualNetwork:
        check = Checker()
        network = from_network(check, request.network)
        check.done()
        await self.ledger.submit(inventory.PutNetwork(network))
        return to_network(self.table.network(network.network_id) or network)

    @unary
    async def DeleteNetwork(
        self, request: pb.DeleteNetworkRequest, caller: Caller
    ) -> pb.DeleteResponse:
        return await self._delete(inventory.DeleteNetwork(request.network_id))

    @unary
    async def ListNetworks(
        self, request: pb.ListNetworksRequest, caller: Caller
    ) -> pb.ListNetworksResponse:
        networks = [
            to_network(n)
            for n in self.table.all(VirtualNetwork, indexes.NETWORKS)
            if request.tenant in ("", n.tenant) and sees(self.table, caller, n)
        ]
        return pb.ListNetworksResponse(networks=networks, revision=self.table.revision)

    @unary
    async def PutGroup(self, request: pb.PutGroupRequest, caller: Caller) -> types_pb2.Group:
        check = Checker()
        group = from_group(check, request.group)
        check.done()
        await self.ledger.submit(_put(group))
        return to_group(self.table.group(group.tenant, group.name) or group)

    @unary
    async def DeleteGroup(
        self, request: pb.DeleteGroupRequest, caller: Caller
    ) -> pb.DeleteResponse:
        return await self._delete(inventory.DeleteGroup(request.tenant, request.name))

    @unary
    async def GetGroup(self, request: pb.GetGroupRequest, caller: Caller) -> types_pb2.Group:
        group = self.table.group(request.tenant, request.name)
        if group is None or not sees(self.table, caller, group):
            raise Refusal(Reason.UNKNOWN_GROUP, f"no group {request.tenant}/{request.name}")
        return to_group(group)

    @unary
    async def ListGroups(
        self, request: pb.ListGroupsRequest, caller: Caller
    ) -> pb.ListGroupsResponse:
        groups = [
            to_group(g)
            for g in self.table.all(Group, indexes.GROUPS)
            if request.tenant in ("", g.tenant) and sees(self.table, caller, g)
        ]
        return pb.ListGroupsResponse(groups=groups, revision=self.table.revision)

    @unary
    async def AssignVm(self, request: pb.AssignVmRequest, caller: Caller) -> types_pb2.VmRecord:
        check = Checker()
        vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
        tenant = optional(check, "tenant", parse_name, request.tenant)
        group = optional(check, "group", parse_name, request.group)
        attachments = tuple(
            _attachment(check, f"interfaces[{n}]", a) for n, a in enumerate(request.interfaces)
        )
        check.done()
        await self.ledger.submit(inventory.AssignVm(vm_id, tenant, group, attachments))
        return self._record(vm_id)

    @unary
    async def SetVmProfile(
        self, request: pb.SetVmProfileRequest, caller: Caller
    ) -> types_pb2.VmRecord:
        check = Checker()
        vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
        with check.at("profile"):
            profile = from_profile(check, request.profile) if request.HasField("profile") else None
        check.done()
        await self.ledger.submit(inventory.SetVmProfile(vm_id, profile))
        return self._record(vm_id)

    @unary
    async def CordonServer(
        self, request: pb.CordonServerRequest, caller: Caller
    ) -> types_pb2.Server:
        await self.ledger.submit(servers.CordonServer(request.server_id, request.cordoned))
        return to_server(self.table.must_server(request.server_id))

    @unary
    async def ThawVm(self, request: pb.ThawVmRequest, caller: Caller) -> pb.ThawVmResponse:
        check = Checker()
        with check.at("key"):
            key = from_key(check, request.key)
        check.done()
        done = await self.ledger.submit(dispute.Thaw(dispute.identity_of(key)))
        return pb.ThawVmResponse(revision=done.revision)


def _attachment(check: Checker, field: str, wire: pb.AssignVmRequest.Attachment) -> Interface:
    with check.at(field):
        return Interface(
            mac=check.parse("mac", parse_mac, wire.mac, ""),
            ips=tuple(check.parse("ips", parse_ip, ip, "") for ip in wire.ips[:64]),
            network=optional(check, "network", parse_name, wire.network),
            vni=check.parse("vni", parse_vni, wire.vni, 0) if wire.vni else 0,
        )
