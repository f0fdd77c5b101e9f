"""Waiting for an operation until it is done, whatever happens to the connection."""

from __future__ import annotations

import time
from contextlib import suppress

import grpc

from common.pb.vsignal.v1 import operations_pb2
from vcenter.ctl import output
from vcenter.ctl.app import App
from vcenter.ctl.failure import Exit, Failure, advice, status_of
from vcenter.ctl.movement import is_coming, receipt
from vcenter.ctl.reporter import reporter
from vcenter.ctl.words import word

_WHOLE_WITHIN = 2.0  # seconds from a move's success; figures come after 0.2 to 1
_PATIENCE = 30  # failed attempts in a row, a second apart, before a lost vCenter is given up


def follow(
    app: App, operation_id: str, *, quiet: bool = False, known: bool = False
) -> operations_pb2.Operation:
    """Until it is done. A vCenter that restarts meanwhile is asked again: the move goes on.

    `known`: the vCenter has just answered about it, so that it is worth asking again at once.
    """
    client, failures = app.client, 0
    request = operations_pb2.GetOperationRequest(operation_id=operation_id)
    end = time.monotonic() + app.timeout if app.timeout else None
    with reporter(app.err, quiet) as shown:
        while True:
            left = max(0.0, end - time.monotonic()) if end else None
            try:
                for op in client.stream(client.operations.Follow, request, left):
                    failures, known = 0, True
                    shown.show(op)
                    if op.done:
                        return op
            except KeyboardInterrupt:
                raise _goes_on(Exit.INTERRUPTED, "interrupted", operation_id) from None
            except grpc.RpcError as error:
                if status_of(error) == "DEADLINE_EXCEEDED":
                    raise _goes_on(Exit.TIMED_OUT, "not done in time", operation_id) from None
                if status_of(error) != "UNAVAILABLE" or not known or failures >= _PATIENCE:
                    raise
            failures += 1
            _pause(operation_id)


def _pause(operation_id: str) -> None:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        raise _goes_on(Exit.INTERRUPTED, "interrupted", operation_id) from None


def _goes_on(code: Exit, why: str, operation_id: str) -> Failure:
    return Failure(
        code,
        f"{why}; the operation goes on",
        f"Follow it:  vctl op follow {operation_id}",
        f"Cancel it:  vctl op cancel {operation_id}",
    )


def _whole(app: App, op: operations_pb2.Operation) -> operations_pb2.Operation:
    """A move's success waits for nobody's figures. Whoever reads its receipt does, for a moment."""
    client, end = app.client, time.monotonic() + _WHOLE_WITHIN
    request = operations_pb2.GetOperationRequest(operation_id=op.operation_id)
    with suppress(grpc.RpcError, KeyboardInterrupt):  # it is done, and what is known is shown
        while is_coming(op) and time.monotonic() < end:
            time.sleep(0.1)
            op = client.call(client.operations.Get, request)
    return op


def finish(app: App, op: operations_pb2.Operation) -> None:
    """Prints the receipt; an operation that did not succeed ends the command with exit code 6."""
    op = _whole(app, op)
    output.one(app, op, receipt(op), op.operation_id)
    if op.phase != operations_pb2.PHASE_SUCCEEDED:
        reason, message = op.failure.reason, op.failure.message
        details = [advice(reason)] if reason else []
        if op.phase != operations_pb2.PHASE_LOST_NEEDS_FENCE:
            parts = [f"Its parts:  vctl op show {op.operation_id}"] * op.HasField("parts")
            details += ["The VM is where it was."] if op.vm_id else parts
        text = f"the operation ended as {word(op, 'phase')}"
        raise Failure(
            Exit.OPERATION_FAILED, f"{text}: {reason}: {message}" if reason else text, *details
        )
