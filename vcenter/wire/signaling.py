"""The seven messages, in the draft's order (section 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from common.codec.checker import Checker
from common.codec.server import from_server_status, from_vm_status
from common.codec.times import to_duration
from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.identity import parse_vm_id
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import signaling_pb2_grpc
from vcenter.agents.arrivals import register
from vcenter.core import deregister, report
from vcenter.wire import lookup, relocate, replicate, sync_group
from vcenter.wire.context import Parts, Servicer
from vcenter.wire.guard import streaming, unary
from vcenter.wire.register import read_register
from vcenter.wire.registered import Registered
from vcenter.wire.rules import own_server

MAX_REPORTED = 10_000


class SignalingService(Servicer, signaling_pb2_grpc.SignalingServicer):
    service = "Signaling"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._registered = Registered(parts.ledger.table)

    @unary
    async def Register(self, request: pb.RegisterRequest, caller: Caller) -> Any:
        """Answers with an encoded `RegisterResponse`."""
        command = read_register(request, own_server(caller, request.server_id))
        parts = self.parts
        reply = await register(self.ledger, parts.sessions, parts.clock, command)
        return self._registered.response(command, reply)

    @unary
    async def Deregister(
        self, request: pb.DeregisterRequest, caller: Caller
    ) -> pb.DeregisterResponse:
        server_id = own_server(caller, request.server_id)
        check = Checker()
        vm_id = check.parse("vm_id", parse_vm_id, request.vm_id, "")
        check.require(request.epoch > 0, "epoch", "the epoch at which the caller owned the VM")
        check.done()
        done = await self.ledger.submit(deregister.Deregister(server_id, vm_id, request.epoch))
        return pb.DeregisterResponse(revision=done.revision)

    @streaming
    async def SyncGroup(
        self, requests: AsyncIterator[pb.SyncGroupRequest], caller: Caller
    ) -> AsyncIterator[pb.SyncGroupResponse]:
        async for response in sync_group.serve(self.parts, requests, caller):
            yield response

    @unary
    async def Lookup(self, request: pb.LookupRequest, caller: Caller) -> pb.LookupResponse:
        """`lookup.Lookup` takes this method's place in the server, and skips the reading back."""
        return self._looked_up(request, caller)

    def _looked_up(self, request: pb.LookupRequest, caller: Caller) -> pb.LookupResponse:
        raw = request.SerializeToString()
        found = lookup.answer(self.table, self.parts.answers, raw, caller)
        return pb.LookupResponse.FromString(found)

    @streaming
    async def LookupStream(
        self, requests: AsyncIterator[pb.LookupRequest], caller: Caller
    ) -> AsyncIterator[pb.LookupResponse]:
        """`lookup.LookupStream` takes this method's place likewise."""
        async for request in requests:
            yield self._looked_up(request, caller)

    @unary
    async def Relocate(self, request: pb.RelocateRequest, caller: Caller) -> pb.RelocateResponse:
        return await relocate.serve(self.parts, request, caller)

    @unary
    async def Replicate(self, request: pb.ReplicateRequest, caller: Caller) -> pb.ReplicateResponse:
        return await replicate.serve(self.parts, request, caller)

    @unary
    async def Report(self, request: pb.ReportRequest, caller: Caller) -> pb.ReportResponse:
        server_id = own_server(caller, request.server_id)
        unknown, revision = await self.take_report(server_id, request)
        lease = to_duration(self.parts.sessions.lease)
        return pb.ReportResponse(lease=lease, revision=revision, unknown=unknown)

    async def take_report(
        self, server_id: str, request: pb.ReportRequest
    ) -> tuple[tuple[str, ...], int]:
        """Also for reports that come on the Attach stream."""
        if len(request.vms) > MAX_REPORTED:
            raise Refusal(Reason.TOO_LARGE, f"at most {MAX_REPORTED} VMs a report")
        check = Checker()
        statuses = []
        for index, status in enumerate(request.vms):
            with check.at(f"vms[{index}]"):
                statuses.append(from_vm_status(check, status))
        check.done()
        now_ms = self.parts.clock.now_ms()
        reported = report.Report(server_id, tuple(statuses))
        unknown, revision = await self._reported(reported, now_ms)
        host = from_server_status(request.server)
        self.parts.monitor.reported(server_id, host, statuses, request.complete, now_ms)
        self.parts.sessions.renew(server_id)
        return unknown, revision

    async def _reported(self, command: report.Report, now_ms: int) -> tuple[tuple[str, ...], int]:
        """Nearly every report is no news to the ledger, and need not wait for those that are."""
        self.ledger.freshness.check()
        decided = command.decide(self.table, now_ms)
        if not decided.changes:
            return decided.reply, self.table.revision
        done = await self.ledger.submit(command)
        return done.reply, done.revision
