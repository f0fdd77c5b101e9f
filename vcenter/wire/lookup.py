"""5.4 on the wire: keys in, locations out, in order; one or thousands a call.

Requests come as bytes and replies leave as bytes (`answers`), which the generated services do not
do; so the method is added once more, over theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.codec.checker import Checker
from common.codec.vm import from_key, plain_key
from common.errors import Reason, Refusal, Violation, invalid
from common.model.caller import Caller
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2
from vcenter.core import indexes
from vcenter.core.table import Table
from vcenter.wire.answers import Answers
from vcenter.wire.context import Parts, Servicer
from vcenter.wire.guard import streaming, unary
from vcenter.wire.methods import Methods
from vcenter.wire.sight import find_id

MAX_KEYS = 10_000
_VM_ID_KEY = "\n\x26\n\x24"  # LookupRequest.keys, 38 bytes: VmKey.vm_id, 36 bytes


def answer(table: Table, answers: Answers, request: pb.LookupRequest, caller: Caller) -> bytes:
    """An encoded `LookupResponse`. What the caller may not see is not found."""
    keys = request.keys
    if not 0 < len(keys) <= MAX_KEYS:
        _refuse_count(len(keys))
    try:
        found = [find_id(table, caller, plain_key(key)) for key in keys]
    except ValueError:
        raise _malformed(keys) from None
    return answers.encode(found)


def answer_raw(table: Table, answers: Answers, raw: bytes, caller: Caller) -> bytes:
    """The same from the request as it came.

    Where every key is the vm_id of a VM that is there, the request is their texts with one fixed
    text before each, and is read without being parsed: whatever else it may be, some piece of it
    is then no vm_id that is known.
    """
    if not caller.confined:
        nothing, *vm_ids = raw.decode("latin-1").split(_VM_ID_KEY)
        if not nothing and 0 < len(vm_ids) <= MAX_KEYS:
            with suppress(KeyError):
                return answers.encode(vm_ids)
    try:
        request = pb.LookupRequest.FromString(raw)
    except DecodeError:
        raise invalid([Violation("", "not a LookupRequest")]) from None
    return answer(table, answers, request, caller)


def _malformed(keys: Sequence[types_pb2.VmKey]) -> Refusal:
    check = Checker()
    for n, wire in enumerate(keys):
        with check.at(f"keys[{n}]"):
            from_key(check, wire)
    return invalid(check.violations)


def _refuse_count(count: int) -> None:
    if count > MAX_KEYS:
        raise Refusal(Reason.TOO_LARGE, f"at most {MAX_KEYS} keys a call, not {count}")
    check = Checker()
    check.require(count > 0, "keys", "at least one")
    check.done()


class Lookup(Servicer):
    """The method `Lookup` of the service that is named: Signaling's and Directory's are alike."""

    def __init__(self, parts: Parts, service: str) -> None:
        super().__init__(parts)
        self.service = service

    def add_to(self, methods: Methods) -> None:
        """After the generated service, whose own method this replaces."""
        method: Any = grpc.unary_unary_rpc_method_handler(self.Lookup)
        methods.add_registered_method_handlers(f"vsignal.v1.{self.service}", {"Lookup": method})

    @unary
    async def Lookup(self, request: bytes, caller: Caller) -> bytes:
        return await answer_everywhere(self.parts, request, caller)


class LookupStream(Servicer):
    """Lookups one after the other in one call, which is what saves a call's cost for each."""

    service = "Signaling"

    def add_to(self, methods: Methods) -> None:
        method: Any = grpc.stream_stream_rpc_method_handler(self.LookupStream)
        methods.add_registered_method_handlers("vsignal.v1.Signaling", {"LookupStream": method})

    @streaming
    async def LookupStream(
        self, requests: AsyncIterator[bytes], caller: Caller
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await answer_everywhere(self.parts, request, caller)


async def answer_everywhere(parts: Parts, raw: bytes, caller: Caller) -> bytes:
    """As `answer_raw`, and what was not found here from other domains."""
    reply = answer_raw(parts.ledger.table, parts.answers, raw, caller)
    if not parts.federation.neighbours:
        return reply
    response = pb.LookupResponse.FromString(reply)
    await complete(parts, pb.LookupRequest.FromString(raw), response, caller)
    return response.SerializeToString()


async def complete(
    parts: Parts, request: pb.LookupRequest, response: pb.LookupResponse, caller: Caller
) -> None:
    """With what other domains know of that which was not found here, or is theirs."""
    in_transit = parts.ledger.table.count(indexes.ABROAD)
    if in_transit or not all(result.found for result in response.results):
        await parts.federation.complete(request, response, caller)
