"""Operations, their progress, and what hosts answer to a move's steps."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.enums import BASIS, HOSTED_STATE, MOVE_KIND, MOVE_STEP, PHASE
from common.codec.manner import from_budget, from_disks, to_budget, to_disks
from common.codec.numbers import measured
from common.codec.times import from_timestamp, to_timestamp
from common.model.identity import parse_vm_id
from common.model.operation import (
    FENCE,
    Basis,
    Failure,
    HostedState,
    MoveKind,
    MoveOutcome,
    Operation,
    PhaseTime,
    Prediction,
    Progress,
    Receipt,
    Standing,
)
from common.pb.vsignal.v1 import operations_pb2 as pb
from common.pb.vsignal.v1 import session_pb2

MAX_DEFINITION = 256 << 10  # bytes
MAX_PORT = 65535


def to_stored(operation: Operation) -> pb.Operation:
    """Also with what nobody is told."""
    wire = to_operation(operation)
    if operation.port or operation.definition:
        standby = pb.Standby(port=operation.port, definition=operation.definition)
        wire.standby.CopyFrom(standby)
    return wire


def to_operation(
    operation: Operation, progress: Progress | None = None, standing: Standing | None = None
) -> pb.Operation:
    wire = pb.Operation(
        operation_id=operation.operation_id,
        kind=operation.kind,
        vm_id=operation.vm_id,
        source=operation.source,
        destination=operation.destination,
        phase=PHASE.to(operation.phase),
        done=operation.phase.final,
        cancel_requested=operation.cancel_requested,
        requested_by=operation.requested_by,
        created_at=to_timestamp(operation.created_ms),
        phases=_to_phases(operation),
        epoch_before=operation.epoch_before,
        epoch_after=operation.epoch_after,
        receipt=to_receipt(operation.receipt),
        revision=operation.revision,
        acks=operation.acks,
        parent=operation.parent,
        priority=operation.priority,
        subject=operation.subject,
        near=operation.near,
        move_kind=MOVE_KIND.to(operation.move_kind),
        gated=operation.gated,
        held=operation.held,
        on_behalf=operation.on_behalf,
        told=operation.told,
        copy_disks=operation.copy_disks,
        disks=to_disks(operation.disks),
        budget=to_budget(operation.budget) if operation.kind != FENCE else None,
    )
    if operation.ended_ms:
        wire.ended_at.CopyFrom(to_timestamp(operation.ended_ms))
    if operation.predicted is not None:
        wire.predicted.CopyFrom(to_prediction(operation.predicted))
    if operation.failure is not None:
        wire.failure.CopyFrom(to_failure(operation.failure))
    if progress is not None:
        wire.progress.CopyFrom(to_progress(progress))
    if standing is not None:
        _put_standing(wire, standing)
    return wire


def _put_standing(wire: pb.Operation, standing: Standing) -> None:
    wire.waits_for.extend(standing.waits_for)
    if standing.expected_end_ms:
        wire.expected_end.CopyFrom(to_timestamp(standing.expected_end_ms))
    if standing.parts is not None:
        total, ended, succeeded = standing.parts
        wire.parts.CopyFrom(pb.Parts(total=total, ended=ended, succeeded=succeeded))


def _to_phases(operation: Operation) -> list[pb.PhaseTime]:
    ends = [p.entered_ms for p in operation.phases[1:]] + [operation.ended_ms or 0]
    return [
        pb.PhaseTime(
            phase=PHASE.to(p.phase),
            entered_at=to_timestamp(p.entered_ms),
            duration_ms=float(end - p.entered_ms) if end else 0.0,
        )
        for p, end in zip(operation.phases, ends, strict=True)
    ]


def from_operation(check: Checker, wire: pb.Operation) -> Operation:
    return Operation(
        operation_id=wire.operation_id,
        kind=wire.kind,
        vm_id=wire.vm_id,
        source=wire.source,
        destination=wire.destination,
        phase=PHASE.read(check, "phase", wire.phase),
        requested_by=wire.requested_by,
        created_ms=from_timestamp(wire.created_at),
        epoch_before=wire.epoch_before,
        epoch_after=wire.epoch_after,
        cancel_requested=wire.cancel_requested,
        ended_ms=from_timestamp(wire.ended_at) if wire.HasField("ended_at") else 0,
        phases=tuple(
            PhaseTime(PHASE.read(check, "phases", p.phase), from_timestamp(p.entered_at))
            for p in wire.phases
        ),
        failure=from_failure(wire.failure) if wire.HasField("failure") else None,
        receipt=_from_receipt(wire.receipt),
        acks=tuple(wire.acks),
        parent=wire.parent,
        priority=wire.priority,
        subject=wire.subject,
        near=wire.near,
        predicted=_from_prediction(check, wire.predicted) if wire.HasField("predicted") else None,
        move_kind=MOVE_KIND.read(check, "move_kind", wire.move_kind, MoveKind.LIVE),
        gated=wire.gated,
        held=wire.held,
        on_behalf=wire.on_behalf,
        told=wire.told,
        copy_disks=wire.copy_disks,
        disks=from_disks(wire.disks),
        budget=from_budget(check, wire.budget),
        port=wire.standby.port,
        definition=wire.standby.definition,
        revision=wire.revision,
    )


def to_failure(failure: Failure) -> pb.Failure:
    return pb.Failure(reason=failure.reason, message=failure.message)


def from_failure(wire: pb.Failure) -> Failure:
    return Failure(wire.reason[:63], wire.message[:2000])


def to_receipt(receipt: Receipt) -> pb.Receipt:
    return pb.Receipt(
        total_ms=receipt.total_ms,
        downtime_ms=receipt.downtime_ms,
        switch_ms=receipt.switch_ms,
        bytes=receipt.bytes,
        iterations=receipt.iterations,
        policy_hash_before=receipt.policy_hash_before,
        policy_hash_after=receipt.policy_hash_after,
        blackout_ms=receipt.blackout_ms,
        bytes_per_second=receipt.bytes_per_second,
        dirty_bytes_per_second=receipt.dirty_bytes_per_second,
        disk_bytes=receipt.disk_bytes,
        slowed_percent=receipt.slowed_percent,
        suspended=receipt.suspended,
        observer=receipt.observer,
        blackout_why=receipt.blackout_why,
    )


def _from_receipt(wire: pb.Receipt) -> Receipt:
    return Receipt(
        total_ms=wire.total_ms,
        downtime_ms=wire.downtime_ms,
        switch_ms=wire.switch_ms,
        bytes=wire.bytes,
        iterations=wire.iterations,
        policy_hash_before=wire.policy_hash_before,
        policy_hash_after=wire.policy_hash_after,
        blackout_ms=wire.blackout_ms if wire.HasField("blackout_ms") else None,
        bytes_per_second=wire.bytes_per_second,
        dirty_bytes_per_second=wire.dirty_bytes_per_second,
        disk_bytes=wire.disk_bytes,
        slowed_percent=wire.slowed_percent,
        suspended=wire.suspended,
        observer=wire.observer,
        blackout_why=wire.blackout_why,
    )


def to_prediction(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(
        total_ms=prediction.total_ms,
        downtime_ms=prediction.downtime_ms,
        bytes_per_second=prediction.bytes_per_second,
        dirty_bytes_per_second=prediction.dirty_bytes_per_second,
        sampled_bytes_per_second=prediction.sampled,
        basis=BASIS.to(prediction.basis),
        disk_bytes=prediction.disk_bytes,
    )


def _from_prediction(check: Checker, wire: pb.Prediction) -> Prediction:
    sampled = wire.HasField("sampled_bytes_per_second")
    return Prediction(
        total_ms=wire.total_ms,
        downtime_ms=wire.downtime_ms,
        bytes_per_second=wire.bytes_per_second,
        dirty_bytes_per_second=wire.dirty_bytes_per_second,
        sampled=wire.sampled_bytes_per_second if sampled else None,
        basis=BASIS.read(check, "basis", wire.basis, Basis.ASSUMED),
        disk_bytes=wire.disk_bytes,
    )


def to_progress(progress: Progress) -> pb.Progress:
    in_step = to_timestamp(progress.in_step_ms) if progress.in_step_ms else None
    return pb.Progress(
        in_step_at=in_step,
        bytes_total=progress.bytes_total,
        bytes_processed=progress.bytes_processed,
        bytes_remaining=progress.bytes_remaining,
        bytes_per_second=progress.bytes_per_second,
        iteration=progress.iteration,
        disk_bytes_total=progress.disk_bytes_total,
        disk_bytes_processed=progress.disk_bytes_processed,
    )


def from_progress(wire: pb.Progress) -> Progress:
    return Progress(
        wire.bytes_total,
        wire.bytes_processed,
        wire.bytes_remaining,
        measured(wire.bytes_per_second),
        wire.iteration,
        wire.disk_bytes_total,
        wire.disk_bytes_processed,
    )


def to_outcome(outcome: MoveOutcome) -> session_pb2.MoveOutcome:
    return session_pb2.MoveOutcome(
        operation_id=outcome.operation_id,
        vm_id=outcome.vm_id,
        epoch=outcome.epoch,
        step=MOVE_STEP.to(outcome.step),
        ok=outcome.ok,
        truth=HOSTED_STATE.to(outcome.truth),
        failure=to_failure(outcome.failure) if outcome.failure is not None else None,
        policy_hash=outcome.policy_hash,
        downtime_ms=outcome.downtime_ms,
        bytes=outcome.bytes,
        iterations=outcome.iterations,
        bytes_per_second=outcome.bytes_per_second,
        dirty_bytes_per_second=outcome.dirty_bytes_per_second,
        gated=outcome.gated,
        disk_bytes=outcome.disk_bytes,
        slowed_percent=outcome.slowed_percent,
        suspended=outcome.suspended,
        port=outcome.port,
        definition=outcome.definition,
    )


def from_outcome(check: Checker, wire: session_pb2.MoveOutcome) -> MoveOutcome:
    check.require(len(wire.definition) <= MAX_DEFINITION, "definition", "at most 256 KiB")
    return MoveOutcome(
        operation_id=check.parse("operation_id", parse_vm_id, wire.operation_id, ""),
        vm_id=check.parse("vm_id", parse_vm_id, wire.vm_id, ""),
        epoch=wire.epoch,
        step=MOVE_STEP.read(check, "step", wire.step),
        ok=wire.ok,
        truth=HOSTED_STATE.read(check, "truth", wire.truth, HostedState.UNKNOWN),
        failure=from_failure(wire.failure) if wire.HasField("failure") else None,
        policy_hash=wire.policy_hash[:64],
        downtime_ms=measured(wire.downtime_ms),
        bytes=wire.bytes,
        iterations=wire.iterations,
        bytes_per_second=measured(wire.bytes_per_second),
        dirty_bytes_per_second=measured(wire.dirty_bytes_per_second),
        gated=wire.gated,
        disk_bytes=wire.disk_bytes,
        slowed_percent=min(wire.slowed_percent, 100),
        suspended=wire.suspended,
        port=wire.port if wire.port <= MAX_PORT else 0,
        definition=wire.definition,
    )
