"""The table of who may call what, with the requests that try each of its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.pb.vsignal.v1 import (
    directory_pb2,
    enrolment_pb2,
    federation_pb2,
    inventory_pb2,
    operations_pb2,
    session_pb2,
)
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2 as types
from tests.support.nouns import by_id, by_ip, ip, vm, vm_id

CALLERS = {
    "vserver": "vserver/host-1",
    "domain": "domain/east",
    "tenant": "tenant/blue",
    "watcher of a tenant": "watcher/nve/tenant/blue",
    "watcher of a network": "watcher/nve/network/blue-net",
    "view": "operator/vic/view",
    "operate": "operator/otto/operate",
    "admin": "operator/ada",
    "nobody": "",
}

# What each column's callers hear of (own, another's, unknown); `-`: FORBIDDEN, whatever it is.
EXPECTED = """
method                    vserver                domain                  tenant          watcher         least    operator
Signaling/Register        ok,YOURS,YOURS         -                       -               -               -        -
Signaling/Deregister      ok,NOT_OWNER,VM        -                       -               -               -        -
Signaling/SyncGroup       ok,YOURS,YOURS         -                       -               -               operate  ok,ok,TENANT
Signaling/Lookup          ok,ok,none             ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Signaling/LookupStream    ok,ok,none             ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Signaling/Relocate        -                      -                       ok,VM,VM        -               operate  ok,ok,VM
Signaling/Replicate       ok,NOT_OWNER,VM        -                       ok,VM,VM        -               operate  ok,ok,VM
Signaling/Report          ok,YOURS,YOURS         -                       -               -               -        -
Session/Attach            ok,YOURS,YOURS         -                       -               -               -        -
Directory/Lookup          ok,ok,none             ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Directory/BatchLookup     ok,ok,none             ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Directory/GetVm           -                      ok,ok,VM                ok,VM,VM        ok,VM,VM        view     ok,ok,VM
Directory/ListVms         -                      ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Directory/CountVms        -                      ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Directory/ListServers     -                      ok,ok,none              -               -               view     ok,ok,none
Federation/ListDomains    -                      ok,ok,ok                -               -               view     ok,ok,ok
Federation/Tell           -                      -                       -               -               admin    NEIGHBOUR,NEIGHBOUR,NEIGHBOUR
Federation/Members        -                      ok,ok,ok                -               -               -        -
Federation/Twins          -                      ok,ok,ok                -               -               -        -
Federation/PlanArrivals   -                      -                       -               -               -        -
Federation/Carry          -                      -                       -               -               -        -
Directory/ListAlerts      -                      -                       -               -               view     ok,ok,none
Directory/WhereWas        -                      ok,ok,none              ok,none,none    -               view     ok,ok,none
Directory/VmHistory       -                      -                       ok,VM,VM        -               view     ok,ok,VM
Directory/Watch           -                      ok,ok,none              ok,none,none    ok,none,none    view     ok,ok,none
Directory/ListAudit       -                      -                       -               -               view     ok,ok,none
Operations/Get            -                      -                       ok,OP,OP        -               view     ok,ok,OP
Operations/List           -                      -                       ok,none,none    -               view     ok,ok,none
Operations/Wait           -                      -                       ok,OP,OP        -               view     ok,ok,OP
Operations/Follow         -                      -                       ok,OP,OP        -               view     ok,ok,OP
Operations/Cancel         -                      -                       DONE,OP,OP      -               operate  DONE,DONE,OP
Operations/Fence          -                      -                       -               -               operate  UP,UP,SERVER
Operations/Settle         -                      -                       -               -               operate  OURS,OURS,VM
Operations/Promote        -                      -                       -               -               operate  NONE,NONE,VM
Inventory/PutTenant       -                      -                       -               -               admin    ok,ok,ok
Inventory/DeleteTenant    -                      -                       -               -               admin    USE,USE,TENANT
Inventory/ListTenants     -                      -                       ok,none,none    -               view     ok,ok,none
Inventory/PutNetwork      -                      -                       -               -               admin    ok,ok,TENANT
Inventory/DeleteNetwork   -                      -                       -               -               admin    USE,USE,NETWORK
Inventory/ListNetworks    -                      -                       ok,none,none    -               view     ok,ok,none
Inventory/PutGroup        -                      -                       -               -               admin    ok,ok,TENANT
Inventory/DeleteGroup     -                      -                       -               -               admin    USE,USE,GROUP
Inventory/GetGroup        -                      -                       ok,GROUP,GROUP  -               view     ok,ok,GROUP
Inventory/ListGroups      -                      -                       ok,none,none    -               view     ok,ok,none
Inventory/AssignVm        -                      -                       -               -               operate  ok,ok,VM
Inventory/SetVmProfile    -                      -                       -               -               admin    ok,ok,VM
Enrolment/Invite          -                      -                       -               -               admin    CA,CA,CA
Enrolment/Renew           CA,CA,CA               CA,CA,CA                CA,CA,CA        CA,CA,CA        view     CA,CA,CA
Enrolment/ListCertificates  -                    -                       -               -               view     ok,ok,ok
Enrolment/Revoke          -                      -                       -               -               admin    ok,ok,ok
Inventory/CordonServer    -                      -                       -               -               operate  ok,ok,SERVER
Inventory/ThawVm          -                      -                       -               -               operate  ok,ok,NOT_FROZEN
"""  # noqa: E501 - a table
SHORT = {
    "YOURS": "NOT_YOUR_SERVER",
    "VM": "UNKNOWN_VM",
    "OP": "UNKNOWN_OPERATION",
    "TENANT": "UNKNOWN_TENANT",
    "NETWORK": "UNKNOWN_NETWORK",
    "GROUP": "UNKNOWN_GROUP",
    "SERVER": "UNKNOWN_SERVER",
    "NEIGHBOUR": "UNKNOWN_DOMAIN",
    "UP": "SERVER_ATTACHED",
    "OURS": "NOT_LOST",
    "NONE": "NO_STANDBY",
    "USE": "IN_USE",
    "DONE": "ALREADY_DONE",
    "CA": "NO_CA",
}
OPERATORS = ("view", "operate", "admin")


@dataclass(frozen=True)
class Thing:
    """A VM and what belongs with it."""

    number: int
    tenant: str

    @property
    def vm_id(self) -> str:
        return vm_id(self.number)

    @property
    def server(self) -> str:
        return f"host-{self.number}"

    @property
    def network(self) -> types.VirtualNetwork:
        vnis = [100 * self.number]
        return types.VirtualNetwork(network_id=f"{self.tenant}-net", tenant=self.tenant, vnis=vnis)

    @property
    def operation(self) -> str:
        return f"00000000-0000-4000-9000-{self.number:012x}"

    @property
    def claim(self) -> str:
        return f"{100 * self.number}/{ip(self.number)}"

    def words(self) -> list[str]:
        """What names it in a text, the longest first."""
        return [self.vm_id, self.operation, f"{self.tenant}/web", self.server, self.tenant]


OWN, OTHERS, UNKNOWN = THINGS = Thing(1, "blue"), Thing(2, "red"), Thing(9, "green")

I, D, O, E = inventory_pb2, directory_pb2, operations_pb2, enrolment_pb2  # noqa: E741
RUNNING = types.VM_STATE_RUNNING
LATE = {"seconds": 4_000_000_000}
Said = Callable[[Thing], Any]

# How each method names a thing.
REQUESTS: dict[str, Said] = {
    "Signaling/Register": lambda t: pb.RegisterRequest(
        vm=vm(t.number, t.tenant, group="web"), state=RUNNING, server_id=t.server
    ),
    "Signaling/Deregister": lambda t: pb.DeregisterRequest(vm_id=t.vm_id, epoch=1),
    "Signaling/SyncGroup": lambda t: [
        pb.SyncGroupRequest(
            begin=pb.SyncGroupRequest.Begin(tenant=t.tenant, group="web", server_id=t.server)
        )
    ],
    "Signaling/Lookup": lambda t: pb.LookupRequest(keys=[by_id(t.number)]),
    "Signaling/LookupStream": lambda t: [pb.LookupRequest(keys=[by_id(t.number)])],
    "Signaling/Relocate": lambda t: pb.RelocateRequest(vm_id=t.vm_id, destination="host-3"),
    "Signaling/Replicate": lambda t: pb.ReplicateRequest(
        vm_id=t.vm_id, near="host-3", plan_only=True
    ),
    "Signaling/Report": lambda t: pb.ReportRequest(server_id=t.server),
    "Session/Attach": lambda t: [
        session_pb2.AgentMessage(hello=session_pb2.Hello(server=host(t.server)))
    ],
    "Directory/Lookup": lambda t: pb.LookupRequest(keys=[by_id(t.number)]),
    "Directory/BatchLookup": lambda t: D.BatchLookupRequest(
        batches=[pb.LookupRequest(keys=[by_id(t.number)])]
    ),
    "Directory/GetVm": lambda t: D.GetVmRequest(key=by_id(t.number)),
    "Directory/ListVms": lambda t: D.ListVmsRequest(tenant=t.tenant),
    "Directory/CountVms": lambda t: D.CountVmsRequest(tenant=t.tenant),
    "Directory/ListServers": lambda t: D.ListServersRequest(),
    "Directory/ListAlerts": lambda t: D.ListAlertsRequest(vm_id=t.vm_id),
    "Directory/WhereWas": lambda t: D.WhereWasRequest(key=by_id(t.number), at=LATE),
    "Directory/VmHistory": lambda t: D.VmHistoryRequest(vm_id=t.vm_id),
    "Directory/Watch": lambda t: D.WatchRequest(vm_id=t.vm_id),
    "Directory/ListAudit": lambda t: D.ListAuditRequest(who=f"vserver/{t.server}"),
    "Federation/ListDomains": lambda t: federation_pb2.ListDomainsRequest(),
    "Federation/Tell": lambda t: federation_pb2.TellRequest(domain=t.server),
    "Federation/Members": lambda t: federation_pb2.MembersRequest(),
    "Federation/Twins": lambda t: federation_pb2.TwinsRequest(),
    "Federation/PlanArrivals": lambda t: federation_pb2.PlanArrivalsRequest(),
    "Federation/Carry": lambda t: federation_pb2.CarryRequest(),
    "Operations/Get": lambda t: O.GetOperationRequest(operation_id=t.operation),
    "Operations/List": lambda t: O.ListOperationsRequest(vm_id=t.vm_id),
    "Operations/Wait": lambda t: O.WaitOperationRequest(operation_id=t.operation),
    "Operations/Follow": lambda t: O.GetOperationRequest(operation_id=t.operation),
    "Operations/Cancel": lambda t: O.CancelOperationRequest(operation_id=t.operation),
    "Operations/Fence": lambda t: O.FenceRequest(server_id=t.server, word="unplugged"),
    "Operations/Promote": lambda t: O.PromoteRequest(vm_id=t.vm_id),
    "Operations/Settle": lambda t: O.SettleRequest(vm_id=t.vm_id, server_id=t.server),
    "Inventory/PutTenant": lambda t: I.PutTenantRequest(tenant=types.Tenant(tenant_id=t.tenant)),
    "Inventory/DeleteTenant": lambda t: I.DeleteTenantRequest(tenant_id=t.tenant),
    "Inventory/ListTenants": lambda t: I.ListTenantsRequest(),
    "Inventory/PutNetwork": lambda t: I.PutNetworkRequest(network=t.network),
    "Inventory/DeleteNetwork": lambda t: I.DeleteNetworkRequest(network_id=t.network.network_id),
    "Inventory/ListNetworks": lambda t: I.ListNetworksRequest(tenant=t.tenant),
    "Inventory/PutGroup": lambda t: I.PutGroupRequest(
        group=types.Group(tenant=t.tenant, name="web")
    ),
    "Inventory/DeleteGroup": lambda t: I.DeleteGroupRequest(tenant=t.tenant, name="web"),
    "Inventory/GetGroup": lambda t: I.GetGroupRequest(tenant=t.tenant, name="web"),
    "Inventory/ListGroups": lambda t: I.ListGroupsRequest(tenant=t.tenant),
    "Inventory/AssignVm": lambda t: I.AssignVmRequest(vm_id=t.vm_id, group="web"),
    "Inventory/CordonServer": lambda t: I.CordonServerRequest(server_id=t.server),
    "Inventory/ThawVm": lambda t: I.ThawVmRequest(key=by_ip(t.number, 100 * t.number)),
    "Inventory/SetVmProfile": lambda t: I.SetVmProfileRequest(vm_id=t.vm_id),
    "Enrolment/Invite": lambda t: E.InviteRequest(identity=f"vserver/{t.server}"),
    "Enrolment/Renew": lambda t: E.RenewRequest(request=b""),
    "Enrolment/ListCertificates": lambda t: E.ListCertificatesRequest(),
    "Enrolment/Revoke": lambda t: E.RevokeRequest(serial=f"{t.number:x}"),
}

# Where an answer says whether there was anything of the thing in it.
FOUND: dict[str, Callable[[Any, Thing], bool]] = {
    "Signaling/Lookup": lambda a, t: a.results[0].found,
    "Signaling/LookupStream": lambda a, t: a.results[0].found,
    "Directory/Lookup": lambda a, t: a.results[0].found,
    "Directory/CountVms": lambda a, t: bool(a.vms),
    "Directory/BatchLookup": lambda a, t: a.batches[0].results[0].found,
    "Directory/ListVms": lambda a, t: bool(a.records),
    "Directory/ListServers": lambda a, t: t.server in {s.server.server_id for s in a.servers},
    "Directory/ListAlerts": lambda a, t: bool(a.alerts),
    "Directory/WhereWas": lambda a, t: a.found,
    "Directory/ListAudit": lambda a, t: bool(a.entries),
    "Directory/Watch": lambda a, t: a.vm.vm.vm_id == t.vm_id,
    "Operations/List": lambda a, t: bool(a.operations),
    "Inventory/ListTenants": lambda a, t: t.tenant in {x.tenant_id for x in a.tenants},
    "Inventory/ListNetworks": lambda a, t: bool(a.networks),
    "Inventory/ListGroups": lambda a, t: bool(a.groups),
}


def host(server_id: str) -> types.Server:
    return types.Server(
        server_id=server_id,
        hypervisor="memory",
        migration_uri=f"memory://{server_id}",
        capabilities=[types.CAPABILITY_ANTI_SPOOFING],
    )


def expected() -> dict[tuple[str, str], list[str]]:
    """(method, role) -> what is heard of OWN, OTHERS, UNKNOWN."""
    head, *lines = (line.split() for line in EXPECTED.strip().splitlines())
    cells: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        said = dict(zip(head, line, strict=True))
        columns = {"vserver": "vserver", "domain": "domain", "tenant": "tenant"}
        columns |= {role: "watcher" for role in CALLERS if role.startswith("watcher")}
        least = OPERATORS.index(said["least"]) if said["least"] != "-" else len(OPERATORS)
        columns |= dict.fromkeys(OPERATORS[least:], "operator")
        for role in CALLERS:
            text = said[columns[role]] if role in columns else "-"
            refused = "UNIDENTIFIED" if role == "nobody" else "FORBIDDEN"
            told = [refused] * 3 if text == "-" else text.split(",")
            cells[said["method"], role] = [SHORT.get(word, word) for word in told]
    return cells
