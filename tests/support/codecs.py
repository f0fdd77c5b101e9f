"""What must hold of the codec for any bytes: refused field by field, or read, and read again as the
same. hypothesis and atheris feed it (tests/unit/test_codec_fuzz.py, `scripts/fuzz codec`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from common.codec import operation, profile, server, trust, twin, vm, wanted
from common.codec.checker import Checker
from common.errors import Refusal
from common.pb.vsignal.v1 import (
    enrolment_pb2,
    session_pb2,
    signaling_pb2,
    storage_pb2,
    types_pb2,
)
from tests.support.generated import Choices, message


@dataclass(frozen=True)
class Codec:
    kind: type[Message]
    read: Callable[[Checker, Any], Any]
    write: Callable[[Any], Message]


# Of what somebody else may send; operations are written by the ledger alone.
CODECS = (
    Codec(types_pb2.Vm, vm.from_vm, vm.to_vm),
    Codec(types_pb2.VmRecord, vm.from_record, vm.to_record),
    Codec(types_pb2.Profile, profile.from_profile, profile.to_profile),
    Codec(types_pb2.Server, server.from_server, server.to_server),
    Codec(types_pb2.Tenant, server.from_tenant, server.to_tenant),
    Codec(types_pb2.VirtualNetwork, server.from_network, server.to_network),
    Codec(types_pb2.Group, server.from_group, server.to_group),
    Codec(types_pb2.Alert, server.from_alert, server.to_alert),
    Codec(signaling_pb2.VmStatus, server.from_vm_status, server.to_vm_status),
    Codec(session_pb2.MoveOutcome, operation.from_outcome, operation.to_outcome),
    Codec(session_pb2.WantedVm, wanted.from_wanted_vm, wanted.to_wanted_vm),
    Codec(enrolment_pb2.Certificate, trust.from_certificate, trust.to_certificate),
    Codec(storage_pb2.Invitation, trust.from_invitation, trust.to_invitation),
    Codec(types_pb2.Twin, twin.from_twin, twin.to_twin),
)


def try_bytes(raw: bytes) -> None:
    """The first byte chooses the type; the second, whether the rest is a message as it would come
    over the wire, or choices to make one from."""
    codec = CODECS[raw[0] % len(CODECS)] if raw else CODECS[0]
    if raw[1:2] < b"\x80":
        try_message(codec, message(codec.kind.DESCRIPTOR, Choices(raw[2:])))
        return
    try:
        try_message(codec, codec.kind.FromString(raw[2:]))
    except DecodeError:
        return


def try_message(codec: Codec, said: Message) -> None:
    check = Checker()
    read = codec.read(check, said)
    if check.violations:
        try:
            check.done()
        except Refusal:
            return
        raise AssertionError("violations without a refusal")
    again = Checker()
    assert codec.read(again, _sent(codec.write(read))) == read, (said, read)
    assert not again.violations, (said, again.violations)


def _sent(wire: Message) -> Message:
    return type(wire).FromString(wire.SerializeToString())
