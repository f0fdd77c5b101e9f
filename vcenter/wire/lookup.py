"""5.4 on the wire: keys in, locations out, in order; one or thousands a call.

Replies leave the handler as bytes (`answers`), which the generated services cannot send; so the
method is registered once more, over theirs.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from common.codec.checker import Checker
from common.codec.vm import from_key
from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import signaling_pb2 as pb
from common.pb.vsignal.v1 import types_pb2
from vcenter.core.lookup import vm_named
from vcenter.core.table import Table
from vcenter.wire.answers import Answers
from vcenter.wire.caller import Caller
from vcenter.wire.context import Parts, Servicer
from vcenter.wire.guard import unary

MAX_KEYS = 10_000


def answer(table: Table, answers: Answers, request: pb.LookupRequest) -> bytes:
    """An encoded `LookupResponse`."""
    keys = request.keys
    if not 0 < len(keys) <= MAX_KEYS:
        _refuse_count(len(keys))
    said = [key.vm_id for key in keys]
    try:
        return answers.encode(said)  # a canonical vm_id that is known needs no check
    except KeyError:
        pass
    found: list[str | None] = [*said]
    unclear = [n for n, vm_id in enumerate(said) if vm_id not in table.vms.rows]
    check = Checker()
    for n in unclear:
        found[n] = _named(table, check, n, keys[n])
    check.done()
    return answers.encode(found)


def _named(table: Table, check: Checker, index: int, key: types_pb2.VmKey) -> str | None:
    with check.at(f"keys[{index}]"):
        return vm_named(table, from_key(check, key)) if not check.violations else None


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

    def add_to(self, server: grpc.aio.Server) -> None:
        """After the generated service, whose own method this replaces."""
        method: Any = grpc.unary_unary_rpc_method_handler(
            self.Lookup, request_deserializer=pb.LookupRequest.FromString
        )
        server.add_registered_method_handlers(f"vsignal.v1.{self.service}", {"Lookup": method})

    @unary
    async def Lookup(self, request: pb.LookupRequest, caller: Caller) -> bytes:
        return answer(self.table, self.parts.answers, request)
