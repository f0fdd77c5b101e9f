"""5.4 on the wire: keys in, locations out, in order; one or thousands a call.

Requests come as bytes and replies leave as bytes (`answers`), which the generated services do not
do; so the method is added once more, over theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.codec.checker import Checker
from common.codec.vm import from_key, plain_key
from common.errors import Reason, Refusal, Violation, invalid
from common.model.caller import Caller
from common.model.place import is_abroad
from common.model.vm import VmKey
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2
from vcenter.core import indexes
from vcenter.core.table import Table
from vcenter.wire import glance
from vcenter.wire.answers import Answers
from vcenter.wire.context import Parts, Servicer
from vcenter.wire.guard import streaming, unary
from vcenter.wire.methods import Methods
from vcenter.wire.sight import find_id

MAX_KEYS = glance.MAX_KEYS


def answer(table: Table, answers: Answers, raw: bytes, caller: Caller) -> bytes:
    """An encoded `LookupResponse` to the request as it came. What the caller may not see is not
    found. Raises `Refusal`."""
    if not caller.confined:
        try:
            if vm_id := glance.vm_id(raw) or _holder(table, raw):
                return answers.one(vm_id, after=answers.revision())
            if vm_ids := glance.vm_ids(raw):
                return answers.encode(vm_ids)
        except KeyError:
            pass  # there is none of that vm_id
    return _answer(table, answers, _keys(_parsed(raw)), caller)


def _answer(table: Table, answers: Answers, keys: Sequence[VmKey], caller: Caller) -> bytes:
    return answers.encode([find_id(table, caller, key) for key in keys])


def _holder(table: Table, raw: bytes) -> str | None:
    at = glance.address(raw)
    return table.vms.holder_at(*at) if at is not None else None


def _parsed(raw: bytes) -> pb.LookupRequest:
    try:
        return pb.LookupRequest.FromString(raw)
    except DecodeError:
        raise invalid([Violation("", "not a LookupRequest")]) from None


def _keys(request: pb.LookupRequest) -> Sequence[VmKey]:
    keys = request.keys
    if not 0 < len(keys) <= MAX_KEYS:
        _refuse_count(len(keys))
    try:
        return [plain_key(key) for key in keys]
    except ValueError:
        raise _malformed(keys) from None


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
        parts = self.parts
        if not parts.federation.neighbours:
            return answer(parts.ledger.table, parts.answers, request, caller)
        return await answer_everywhere(parts, request, caller)


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
        async for request in requests:  # what a neighbour may learn can change meanwhile
            shown = self.shown.to(caller, "Signaling/LookupStream")
            yield await answer_everywhere(self.parts, request, shown)


async def answer_everywhere(parts: Parts, raw: bytes, caller: Caller) -> bytes:
    """As `answer`, and what was not found here from other domains: put together from encoded
    pieces too, where all is known; else from what others say who are asked now."""
    table, answers = parts.ledger.table, parts.answers
    if not parts.federation.neighbours:
        return answer(table, answers, raw, caller)
    if vm_ids := glance.vm_ids(raw):
        if not caller.confined and not table.count(indexes.ABROAD):
            with suppress(KeyError):
                return answers.encode(vm_ids)
        known = _known(parts, map(VmKey, vm_ids), caller)
        if known is not None:
            return known
    request = _parsed(raw)
    keys = _keys(request)
    known = _known(parts, keys, caller)
    if known is not None:
        return known
    response = pb.LookupResponse.FromString(_answer(table, answers, keys, caller))
    await parts.federation.complete(request, response, caller)
    return response.SerializeToString()


def _known(parts: Parts, keys: Iterable[VmKey], caller: Caller) -> bytes | None:
    """None: something is not known of one of them at least, or not by its own domain's word."""
    found = []
    for key in keys:
        one = _own(parts, key, caller) or parts.federation.kept(key, caller)
        if one is None:
            return None
        found.append(one)
    return b"".join((*found, parts.answers.revision()))


def _own(parts: Parts, key: VmKey, caller: Caller) -> bytes | None:
    """One that is ours to answer for, and not here for its move's sake alone."""
    table = parts.ledger.table
    vm_id = find_id(table, caller, key)
    if vm_id is None or is_abroad(table.vms.place_of(vm_id)[0]):
        return None
    return parts.answers.one(vm_id)
