"""Refusals on the wire: `google.rpc.Status` with ErrorInfo, BadRequest, RetryInfo, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from common.codec.times import from_duration, to_duration
from common.errors import Reason, Refusal, Violation
from common.trimming import cut, first_of

DOMAIN = "vsignal"

# gRPC takes 8 KiB of trailers, and a client that is sent more hears nothing of the refusal. The
# message is in there twice: percent-encoded by itself, and in the status, which is in base64.
MESSAGE_BYTES = 1200
EVIDENCE_BYTES = 1400
VIOLATIONS_BYTES = 1800


def refusal_to_status(refusal: Refusal) -> Status:
    """Details in the order that clients look for them. What does not fit is cut, and said to be."""
    evidence = first_of(refusal.evidence.items(), EVIDENCE_BYTES)
    details = [_pack(ErrorInfo(reason=refusal.reason.name, domain=DOMAIN, metadata=dict(evidence)))]
    if refusal.violations:
        details.append(_pack(_bad_request(refusal.violations)))
    if refusal.retry_after is not None:
        details.append(_pack(RetryInfo(retry_delay=to_duration(refusal.retry_after))))
    code = Code.Value(refusal.reason.kind.value)
    return Status(code=code, message=cut(refusal.message, MESSAGE_BYTES), details=details)


def _bad_request(violations: Sequence[Violation]) -> BadRequest:
    said = [(violation.field, violation.description) for violation in violations]
    shown = first_of(said, VIOLATIONS_BYTES)
    if len(shown) < len(said):
        shown.append(("", f"and {len(said) - len(shown)} more"))
    fields = [BadRequest.FieldViolation(field=f, description=d) for f, d in shown]
    return BadRequest(field_violations=fields)


def refusal_from_call(error: grpc.RpcError) -> Refusal | None:
    """The refusal that a server of ours sent; None if the error is of another kind."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    if status is None:
        return None
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    return Refusal(
        Reason[info.reason],
        status.message,
        violations=tuple(Violation(v.field, v.description) for v in bad.field_violations),
        evidence=dict(info.metadata),
        retry_after=from_duration(retry.retry_delay) if retry.HasField("retry_delay") else None,
    )


def _pack(message: ErrorInfo | BadRequest | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
