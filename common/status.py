"""Refusals on the wire: `google.rpc.Status` with ErrorInfo, BadRequest, RetryInfo, both ways."""

from __future__ import annotations

from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from common.codec.times import from_duration, to_duration
from common.errors import Reason, Refusal, Violation

DOMAIN = "vsignal"


def refusal_to_status(refusal: Refusal) -> Status:
    """Details in the order that clients look for them."""
    details = [
        _pack(ErrorInfo(reason=refusal.reason.name, domain=DOMAIN, metadata=dict(refusal.evidence)))
    ]
    if refusal.violations:
        fields = [
            BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in refusal.violations
        ]
        details.append(_pack(BadRequest(field_violations=fields)))
    if refusal.retry_after is not None:
        details.append(_pack(RetryInfo(retry_delay=to_duration(refusal.retry_after))))
    code = Code.Value(refusal.reason.kind.value)
    return Status(code=code, message=refusal.message, details=details)


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
