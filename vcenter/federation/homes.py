"""Which domain a request is for, and which neighbour is the way there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from common.codec.vm import plain_key
from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.operation import Operation
from common.model.place import domain_of, is_abroad
from common.pb.vsignal.v1 import federation_pb2, operations_pb2, types_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from vcenter.core.table import Table
from vcenter.federation.federation import Federation
from vcenter.federation.neighbour import Neighbour
from vcenter.wire.sight import find_vm, sees

REMEMBERED = 10_000  # operations that were asked for here and are carried out elsewhere


class Homes:
    """Where things are, as far as this vCenter can tell: its own first, then what it follows."""

    def __init__(self, own: Table, federation: Federation) -> None:
        self._own = own
        self._federation = federation
        self._started: dict[str, str] = {}  # operation: domain

    @property
    def others(self) -> bool:
        """Whether there are other domains at all, as far as we know."""
        return bool(self._federation.neighbours)

    def answered(self, domain: str, answer: object) -> None:
        """An operation that begins in another domain is found there again, also by who does not
        follow that domain."""
        operation_id = getattr(answer, "operation_id", "")
        if isinstance(answer, pb.RelocateResponse | pb.ReplicateResponse):
            operation_id = answer.operation.operation_id
        if operation_id:
            self._started[operation_id] = domain
            if len(self._started) > REMEMBERED:
                del self._started[next(iter(self._started))]

    async def of(self, request: object, caller: Caller) -> str:
        """The domain that owns what the request names first; empty: we, or nobody that is known."""
        if not self.others or not isinstance(request, Message):
            return ""
        for field, value in _named(request):
            if field in ("operation_id", "parent"):
                if isinstance(request, operations_pb2.CancelOperationRequest):
                    return self._who_decides(value, caller)
                return self._of_operation(value, caller)
            if field == "server_id":
                return self._of_server(value, caller)
            return await self._of_vm(value, caller)
        return ""

    def _of_operation(self, operation_id: str, caller: Caller) -> str:
        if self._own.operation(operation_id) is not None:
            return ""
        for name, table in self._federation.copies():
            found = table.operation(operation_id)
            if isinstance(found, Operation) and sees(table, caller, found):
                return name
        return self._started.get(operation_id, "")

    def _who_decides(self, operation_id: str, caller: Caller) -> str:
        """Of a move from another domain to here, that one."""
        move = self._own.operation(operation_id)
        if move is None:
            return self._of_operation(operation_id, caller)
        return domain_of(move.source)

    def _of_server(self, server_id: str, caller: Caller) -> str:
        if is_abroad(server_id):
            return domain_of(server_id)
        if caller.confined or self._own.server(server_id) is not None:
            return ""
        copies = self._federation.copies()
        return next((name for name, table in copies if table.server(server_id) is not None), "")

    async def _of_vm(self, wire: types_pb2.VmKey, caller: Caller) -> str:
        try:
            key = plain_key(wire)
        except ValueError:
            return ""  # whoever carries it out says what is wrong with it
        here = find_vm(self._own, caller, key)
        if here is not None:  # of one that is on its way, whose it is now
            return domain_of(here.location.server_id)
        request = pb.LookupRequest(keys=[wire], asked=caller.via)
        response = pb.LookupResponse(results=[pb.LookupResult()])
        await self._federation.complete(request, response, caller)
        return response.results[0].authority

    async def towards(self, domain: str, via: Sequence[str]) -> Neighbour:
        """The neighbour that is the domain, or knows the way. Raises `Refusal(UNKNOWN_DOMAIN)`."""
        open_ways = [n for n in self._federation.neighbours if n.name not in via and n.is_right]
        for neighbour in open_ways:
            if neighbour.name == domain:
                return neighbour
        trees = await asyncio.gather(*(_tree(n, via) for n in open_ways))
        for neighbour, tree in zip(open_ways, trees, strict=True):
            if domain in tree:
                return neighbour
        silent = [n.name for n, tree in zip(open_ways, trees, strict=True) if not tree]
        heard = f"; these could not be asked: {', '.join(silent)}" if silent else ""
        raise Refusal(Reason.UNKNOWN_DOMAIN, f"no domain {domain!r} is known here{heard}")


async def _tree(neighbour: Neighbour, via: Sequence[str]) -> set[str]:
    """Every domain that it knows, itself included; none: it cannot be asked."""
    try:
        return set(_names((await neighbour.domains(True, via)).domain))
    except grpc.aio.AioRpcError:
        return set()


def _names(domain: federation_pb2.Domain) -> Iterable[str]:
    yield domain.name
    for inner in domain.domains:
        yield from _names(inner)


def _named(request: Message) -> Iterable[tuple[str, Any]]:
    """What the request is about, the most telling first."""
    fields = request.DESCRIPTOR.fields_by_name
    for field in ("operation_id", "vm_id", "key", "server_id", "parent"):
        value = getattr(request, field) if field in fields else None
        if field == "vm_id" and value:
            yield field, types_pb2.VmKey(vm_id=value)
        elif isinstance(value, types_pb2.VmKey):
            if value.WhichOneof("key"):
                yield field, value
        elif value:
            yield field, value
