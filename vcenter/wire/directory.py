"""Reading the ledger: lookups, lists, and the watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from common.codec.checker import Checker
from common.codec.profile import to_profile
from common.codec.server import to_alert, to_server, to_server_status, to_vm_status
from common.codec.times import to_timestamp
from common.codec.twin import to_twin
from common.codec.vm import from_key, to_record, to_resources
from common.errors import Reason, Refusal
from common.model.caller import OPERATORS, Caller
from common.model.server import Alert, Liveness, Server
from common.model.vm import VmRecord
from common.pb.vsignal.v1 import directory_pb2 as pb
from common.pb.vsignal.v1 import directory_pb2_grpc, signaling_pb2, types_pb2
from vcenter.core import indexes, keys
from vcenter.core.loads import Loads
from vcenter.core.placement import best_of
from vcenter.core.twin import twins_of
from vcenter.wire import audit, lookup, past, watch
from vcenter.wire.context import Servicer
from vcenter.wire.counting import count_vms
from vcenter.wire.guard import streaming, unary
from vcenter.wire.paging import page
from vcenter.wire.sight import find_vm, sees_vm

MAX_BATCHES = 10


class DirectoryService(Servicer, directory_pb2_grpc.DirectoryServicer):
    service = "Directory"

    @unary
    async def Lookup(
        self, request: signaling_pb2.LookupRequest, caller: Caller
    ) -> signaling_pb2.LookupResponse:
        """As Signaling's."""
        return await self._looked_up(request, caller)

    @unary
    async def BatchLookup(
        self, request: pb.BatchLookupRequest, caller: Caller
    ) -> pb.BatchLookupResponse:
        keys = sum(len(batch.keys) for batch in request.batches)
        if len(request.batches) > MAX_BATCHES or keys > lookup.MAX_KEYS:
            text = f"at most {MAX_BATCHES} batches and {lookup.MAX_KEYS} keys in all"
            raise Refusal(Reason.TOO_LARGE, text)
        return pb.BatchLookupResponse(
            batches=[await self._looked_up(batch, caller) for batch in request.batches]
        )

    async def _looked_up(
        self, request: signaling_pb2.LookupRequest, caller: Caller
    ) -> signaling_pb2.LookupResponse:
        raw = request.SerializeToString()
        answered = await lookup.answer_everywhere(self.parts, raw, caller)
        return signaling_pb2.LookupResponse.FromString(answered)

    @unary
    async def GetVm(self, request: pb.GetVmRequest, caller: Caller) -> pb.GetVmResponse:
        check = Checker()
        with check.at("key"):
            key = from_key(check, request.key)
        check.done()
        record = find_vm(self.table, caller, key)
        if record is None:
            raise Refusal(Reason.UNKNOWN_VM, "no VM has this identity here")
        profile = self.table.profile_of(record.vm)
        wire = pb.GetVmResponse(
            record=to_record(record, profile.digest()),
            effective_profile=to_profile(profile),
            revision=self.table.revision,
        )
        if caller.role in OPERATORS:
            wire.twins.extend(to_twin(twin) for twin in twins_of(self.table, record.vm))
        status = self.parts.monitor.vm(record.location.server_id, record.vm.vm_id)
        if status is not None:
            wire.status.CopyFrom(to_vm_status(status))
        return wire

    @unary
    async def ListVms(self, request: pb.ListVmsRequest, caller: Caller) -> pb.ListVmsResponse:
        wanted = partial(self._wanted, request, caller)
        chosen, token = page(
            self._candidates(request, caller), request.page_size, request.page_token, wanted
        )
        records = [r for k in chosen if isinstance(r := self.table.get(k), VmRecord)]
        wire = [to_record(r, self.table.profile_of(r.vm).digest()) for r in records]
        return pb.ListVmsResponse(records=wire, next_page_token=token, revision=self.table.revision)

    def _candidates(self, request: pb.ListVmsRequest, caller: Caller) -> list[str]:
        """The narrowest tag that the request names, or that the caller is confined to."""
        tag = indexes.VMS
        if caller.tenant:
            tag = indexes.of_tenant(caller.tenant)
        elif request.server_id:
            tag = indexes.owned_by(request.server_id)
        elif request.tenant and request.group:
            tag = indexes.in_group(request.tenant, request.group)
        elif request.tenant:
            tag = indexes.of_tenant(request.tenant)
        elif name := caller.network or request.network:
            network = self.table.network(name)
            vnis = network.vnis if network is not None else ()
            return list({key for vni in vnis for key in self.table.find(indexes.on_vni(vni))})
        return list(self.table.find(tag))

    def _wanted(self, request: pb.ListVmsRequest, caller: Caller, key: str) -> bool:
        record = self.table.get(key)
        if not isinstance(record, VmRecord):
            return False
        vm = record.vm
        return (
            sees_vm(caller, vm)
            and request.tenant in ("", vm.tenant)
            and request.group in ("", vm.group)
            and request.server_id in ("", record.location.server_id)
            and (not request.network or request.network in {i.network for i in vm.interfaces})
            and not (request.unassigned_only and vm.assigned)
        )

    @unary
    async def CountVms(self, request: pb.CountVmsRequest, caller: Caller) -> pb.CountVmsResponse:
        return count_vms(self.table, request, caller)

    @unary
    async def ListServers(
        self, request: pb.ListServersRequest, caller: Caller
    ) -> pb.ListServersResponse:
        servers = {keys.server(s.server_id): s for s in self.table.all(Server, indexes.SERVERS)}
        attached = [s for s in servers.values() if s.liveness is Liveness.ATTACHED]
        promised = Loads(self.table)
        least = best_of(promised, attached)
        loads: dict[str, pb.ServerLoad] = {}

        def wanted(key: str) -> bool:
            load = loads[key] = self._load(promised, servers[key], servers[key] is least)
            named = request.load in (pb.LOAD_UNSPECIFIED, load.load)
            return named and (load.least_used or not request.least_used_only)

        chosen, token = page(servers, request.page_size, request.page_token, wanted)
        return pb.ListServersResponse(
            servers=[loads[key] for key in chosen],
            next_page_token=token,
            revision=self.table.revision,
        )

    def _load(self, promised: Loads, server: Server, is_least: bool) -> pb.ServerLoad:
        wire = to_server(server)
        wire.committed.CopyFrom(to_resources(promised.of(server.server_id)))
        wire.vms = self.table.count(indexes.owned_by(server.server_id))
        load = pb.ServerLoad(
            server=wire,
            load=self._level(server, wire),
            least_used=is_least,
            committed_share=promised.share(server),
        )
        report = self.parts.monitor.host(server.server_id)
        if report is not None:
            load.status.CopyFrom(to_server_status(report.status))
            load.server.last_seen.CopyFrom(to_timestamp(report.at_ms))
        return load

    def _level(self, server: Server, wire: types_pb2.Server) -> pb.Load.ValueType:
        if server.liveness is not Liveness.ATTACHED:
            return pb.LOAD_UNSPECIFIED
        if self.parts.monitor.overloaded(self.table, server):
            return pb.LOAD_OVERLOADED
        return pb.LOAD_NORMAL if wire.vms else pb.LOAD_UNUSED

    @unary
    async def ListAlerts(
        self, request: pb.ListAlertsRequest, caller: Caller
    ) -> pb.ListAlertsResponse:
        limit = min(request.limit or 100, 1000)
        alerts = [
            a for a in self.table.all(Alert, indexes.ALERTS) if request.vm_id in ("", a.vm_id)
        ]
        newest = sorted(alerts, key=lambda a: a.revision, reverse=True)[:limit]
        return pb.ListAlertsResponse(
            alerts=[to_alert(a) for a in newest], revision=self.table.revision
        )

    @unary
    async def WhereWas(self, request: pb.WhereWasRequest, caller: Caller) -> pb.WhereWasResponse:
        return await past.where_was(self.ledger, request, caller, self.parts.clock.now_ms())

    @unary
    async def VmHistory(self, request: pb.VmHistoryRequest, caller: Caller) -> pb.VmHistoryResponse:
        return await past.vm_history(self.ledger, request, caller)

    @unary
    async def ListAudit(self, request: pb.ListAuditRequest, caller: Caller) -> pb.ListAuditResponse:
        return await audit.listed(self.audit.journal, request)

    @streaming
    async def Watch(self, request: pb.WatchRequest, caller: Caller) -> AsyncIterator[pb.WatchEvent]:
        async for event in watch.serve(self.ledger, request, caller, self.parts.bookmark_seconds):
            yield event
