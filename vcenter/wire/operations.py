"""Operations: get, list, wait, follow, cancel; fence, settle, promote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from common.codec.operation import to_operation
from common.codec.times import from_duration
from common.errors import Violation, invalid
from common.model.caller import Caller
from common.model.operation import Operation, Standing
from common.model.vm import Location
from common.pb.vsignal.v1 import operations_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2_grpc
from vcenter.core import indexes
from vcenter.core.cancel import Cancel
from vcenter.core.fence import Fence, Settle
from vcenter.core.outlook import outlook, parts_of
from vcenter.core.standby import Promote
from vcenter.moves.settling import promote, settle
from vcenter.wire.context import Servicer
from vcenter.wire.guard import streaming, unary
from vcenter.wire.sight import must_operation, sees

DEFAULT_WAIT_S, MAX_WAIT_S = 60.0, 3600.0
PAGE, MAX_PAGE = 100, 1000
MAX_TOKEN = 18
MAX_WORD = 500


class OperationsService(Servicer, operations_pb2_grpc.OperationsServicer):
    service = "Operations"

    def _wire(
        self, operation: Operation, caller: Caller, standings: dict[str, Standing] | None = None
    ) -> pb.Operation:
        """`standings`: of all active ones, where many are asked about. What others do on a host is
        not a tenant's to know."""
        if standings is None:
            standings = {} if operation.phase.final else self._standings()
        operation_id = operation.operation_id
        standing = standings.get(operation_id) or parts_of(self.table, operation)
        if standing is not None and caller.confined:
            standing = replace(standing, waits_for=())
        return to_operation(operation, self.parts.board.progress(operation_id), standing)

    def _standings(self) -> dict[str, Standing]:
        return outlook(self.table, self.parts.limits, self.parts.clock.now_ms())

    @unary
    async def Get(self, request: pb.GetOperationRequest, caller: Caller) -> pb.Operation:
        return self._wire(must_operation(self.table, caller, request.operation_id), caller)

    @unary
    async def List(
        self, request: pb.ListOperationsRequest, caller: Caller
    ) -> pb.ListOperationsResponse:
        tag = indexes.ACTIVE if request.active_only else indexes.OPERATIONS
        found = [
            o
            for o in self.table.all(Operation, tag)
            if request.vm_id in ("", o.vm_id)
            and request.parent in ("", o.parent)
            and sees(self.table, caller, o)
        ]
        found.sort(key=lambda o: (o.created_ms, o.operation_id), reverse=True)
        start = self._start(request.page_token)
        size = min(request.page_size or PAGE, MAX_PAGE)
        more = str(start + size) if start + size < len(found) else ""
        standings = self._standings()
        return pb.ListOperationsResponse(
            operations=[self._wire(o, caller, standings) for o in found[start : start + size]],
            next_page_token=more,
            revision=self.table.revision,
        )

    def _start(self, token: str) -> int:
        if token and not (token.isdecimal() and len(token) <= MAX_TOKEN):
            raise invalid([Violation("page_token", "not a token that this service gave")])
        return int(token or 0)

    @unary
    async def Wait(self, request: pb.WaitOperationRequest, caller: Caller) -> pb.Operation:
        must_operation(self.table, caller, request.operation_id)
        timeout = DEFAULT_WAIT_S
        if request.HasField("timeout"):
            timeout = from_duration(request.timeout)
        if not 0 <= timeout <= MAX_WAIT_S:
            raise invalid([Violation("timeout", f"0..{MAX_WAIT_S:.0f} s")])
        return self._wire(await self.parts.board.wait(request.operation_id, timeout), caller)

    @streaming
    async def Follow(
        self, request: pb.GetOperationRequest, caller: Caller
    ) -> AsyncIterator[pb.Operation]:
        must_operation(self.table, caller, request.operation_id)
        async for operation in self.parts.board.follow(request.operation_id):
            yield self._wire(operation, caller)

    @unary
    async def Cancel(self, request: pb.CancelOperationRequest, caller: Caller) -> pb.Operation:
        must_operation(self.table, caller, request.operation_id)
        operation = (await self.ledger.submit(Cancel(request.operation_id))).reply
        return self._wire(operation, caller)

    @unary
    async def Fence(self, request: pb.FenceRequest, caller: Caller) -> pb.Operation:
        if len(request.word) > MAX_WORD:
            raise invalid([Violation("word", f"at most {MAX_WORD} characters")])
        command = Fence(
            self.parts.new_id(),
            request.server_id,
            str(caller),
            request.word.strip(),
            has_device=self.parts.has_fence(request.server_id),
        )
        return self._wire((await self.ledger.submit(command)).reply, caller)

    @unary
    async def Settle(self, request: pb.SettleRequest, caller: Caller) -> pb.SettleResponse:
        command = Settle(request.vm_id, request.server_id, str(caller))
        parts = self.parts
        done = await settle(self.ledger, parts.sessions, parts.carrier, command, caller)
        location: Location = done.reply
        return pb.SettleResponse(
            server_id=location.server_id, epoch=location.epoch, revision=done.revision
        )

    @unary
    async def Promote(self, request: pb.PromoteRequest, caller: Caller) -> pb.Operation:
        command = Promote(request.vm_id, str(caller))
        done = await promote(self.ledger, self.parts.sessions, self.parts.monitor, command)
        return self._wire(done.reply, caller)
