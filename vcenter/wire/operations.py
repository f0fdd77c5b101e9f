"""Operations: get, list, wait, follow, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator

from common.codec.operation import to_operation
from common.codec.times import from_duration
from common.errors import Violation, invalid
from common.model.operation import Operation
from common.pb.vsignal.v1 import operations_pb2 as pb
from common.pb.vsignal.v1 import operations_pb2_grpc
from vcenter.core import indexes
from vcenter.core.movement import Cancel
from vcenter.wire.caller import Caller
from vcenter.wire.context import Servicer
from vcenter.wire.guard import streaming, unary

DEFAULT_WAIT_S, MAX_WAIT_S = 60.0, 3600.0
PAGE, MAX_PAGE = 100, 1000
MAX_TOKEN = 18


class OperationsService(Servicer, operations_pb2_grpc.OperationsServicer):
    service = "Operations"

    def _wire(self, operation: Operation) -> pb.Operation:
        return to_operation(operation, self.parts.board.progress(operation.operation_id))

    @unary
    async def Get(self, request: pb.GetOperationRequest, caller: Caller) -> pb.Operation:
        return self._wire(self.table.must_operation(request.operation_id))

    @unary
    async def List(
        self, request: pb.ListOperationsRequest, caller: Caller
    ) -> pb.ListOperationsResponse:
        tag = indexes.ACTIVE if request.active_only else indexes.OPERATIONS
        found = [o for o in self.table.all(Operation, tag) if request.vm_id in ("", o.vm_id)]
        found.sort(key=lambda o: (o.created_ms, o.operation_id), reverse=True)
        start = self._start(request.page_token)
        size = min(request.page_size or PAGE, MAX_PAGE)
        more = str(start + size) if start + size < len(found) else ""
        return pb.ListOperationsResponse(
            operations=[self._wire(o) for o in found[start : start + size]],
            next_page_token=more,
            revision=self.table.revision,
        )

    def _start(self, token: str) -> int:
        if token and not (token.isdecimal() and len(token) <= MAX_TOKEN):
            raise invalid([Violation("page_token", "not a token that this service gave")])
        return int(token or 0)

    @unary
    async def Wait(self, request: pb.WaitOperationRequest, caller: Caller) -> pb.Operation:
        timeout = DEFAULT_WAIT_S
        if request.HasField("timeout"):
            timeout = from_duration(request.timeout)
        if not 0 <= timeout <= MAX_WAIT_S:
            raise invalid([Violation("timeout", f"0..{MAX_WAIT_S:.0f} s")])
        return self._wire(await self.parts.board.wait(request.operation_id, timeout))

    @streaming
    async def Follow(
        self, request: pb.GetOperationRequest, caller: Caller
    ) -> AsyncIterator[pb.Operation]:
        async for operation in self.parts.board.follow(request.operation_id):
            yield self._wire(operation)

    @unary
    async def Cancel(self, request: pb.CancelOperationRequest, caller: Caller) -> pb.Operation:
        operation = (await self.ledger.submit(Cancel(request.operation_id))).reply
        return self._wire(operation)
