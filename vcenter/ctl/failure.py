"""Exit codes, and how a refusal is told: the reason, the evidence, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import click
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from common.errors import Kind, Reason
from vcenter.ctl.words import clean


class Exit(IntEnum):
    """What the shell sees; documented in docs/vctl.md."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    TIMED_OUT = 5
    OPERATION_FAILED = 6
    PERMISSION = 7
    INTERRUPTED = 130


_EXITS = {
    "NOT_FOUND": Exit.NOT_FOUND,
    "UNAVAILABLE": Exit.UNAVAILABLE,
    "DEADLINE_EXCEEDED": Exit.TIMED_OUT,
    "PERMISSION_DENIED": Exit.PERMISSION,
    "UNAUTHENTICATED": Exit.PERMISSION,
}


class Failure(click.ClickException):
    """Ends the command with an exit code and, on stderr, lines for a person."""

    def __init__(self, code: Exit, message: str, *details: str) -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    def show(self, file: object = None) -> None:
        """The message, then what belongs to it, indented."""
        click.echo(f"vctl: {clean(self.message)}", err=True)
        for line in self.details:
            click.echo(f"  {clean(line)}", err=True)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the server said, out of the status and its details."""

    status: str
    message: str
    reason: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None


def exit_for(status: str) -> Exit:
    """The exit code for the name of a gRPC status."""
    return _EXITS.get(status, Exit.REFUSED)


def exit_for_kind(kind: Kind) -> Exit:
    """The same, for a reason's kind."""
    return exit_for(kind.value)


def complaint(error: grpc.RpcError) -> Complaint:
    """Decodes `google.rpc.Status` from the trailers; without one, the bare status."""
    call: grpc.Call = error  # type: ignore[assignment]  # what a client raises is both
    bare = Complaint(status_of(error), call.details() or "")
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # a Status that contradicts the call's own code
        return bare
    if status is None:
        return bare
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, seconds = error_details_pb2.RetryInfo(), None
    for detail in status.details:
        if detail.Unpack(retry):
            seconds = retry.retry_delay.ToTimedelta().total_seconds()
        elif not detail.Unpack(info):
            detail.Unpack(bad)
    fields = tuple((v.field, v.description) for v in bad.field_violations)
    return Complaint(bare.status, status.message, info.reason, fields, dict(info.metadata), seconds)


def status_of(error: grpc.RpcError) -> str:
    """The name of the gRPC status: `NOT_FOUND`."""
    call: grpc.Call = error  # type: ignore[assignment]
    return call.code().name


def failure(error: grpc.RpcError, server: str) -> Failure:
    """What to tell a person about a call that did not succeed."""
    said = complaint(error)
    code = exit_for(said.status)
    if not said.reason:
        return Failure(code, *_without_reason(said, server))
    lines = [f"{name}: {text}" for name, text in said.fields]
    lines += [f"{name} = {value}" for name, value in sorted(said.evidence.items())]
    lines.append(advice(said.reason))
    if said.retry_after is not None:
        lines.append(f"Try again in {said.retry_after:g} s.")
    message = said.reason if said.fields and said.message else f"{said.reason}: {said.message}"
    return Failure(code, message, *lines)


def advice(reason: str) -> str:
    """What to do about a reason."""
    known = Reason.__members__.get(reason)
    return known.explanation if known else "This vctl does not know the reason; it may be older."


def _without_reason(said: Complaint, server: str) -> tuple[str, ...]:
    match said.status:
        case "UNAVAILABLE":
            hint = "Does a vCenter listen there? Choose another with --server or VCTL_SERVER."
            trust = "If it does, one of you does not believe the other's certificate; its log says."
            return f"{server} cannot be reached", said.message, hint, trust
        case "DEADLINE_EXCEEDED":
            hint = "Whether the request was carried out is not known: look before you repeat it."
            return f"no answer from {server} in time", hint, "Wait longer with --timeout."
        case "UNIMPLEMENTED":
            return f"{server} does not know this call; is it an older vCenter?", said.message
        case status:
            return (f"{status}: {said.message}",)
