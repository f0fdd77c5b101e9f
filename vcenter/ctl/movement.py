"""A move and its receipt, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from common.pb.vsignal.v1 import operations_pb2
from vcenter.ctl.output import Column, Pairs
from vcenter.ctl.words import enum_word, listed, moment, or_none, short, size, span, word

Operation = operations_pb2.Operation


def route(op: Operation) -> str:
    """`host-1 -> host-2`."""
    return f"{op.source or '?'} -> {op.destination or '?'}"


def subject(op: Operation) -> str:
    """What is moved."""
    return op.vm_id or op.subject


def parts(op: Operation) -> str:
    """`3 of 8 ended, 3 succeeded`."""
    return f"{op.parts.ended} of {op.parts.total} ended, {op.parts.succeeded} succeeded"


def waiting(op: Operation) -> str:
    """Why it waits, or how far its parts are."""
    return parts(op) if op.HasField("parts") else "; ".join(op.waits_for)


def as_tree(operations: Iterable[Operation]) -> list[Operation]:
    """The same, with the parts of each right after it."""
    found = list(operations)
    whole = {op.operation_id for op in found if not op.parent}
    parts_of: dict[str, list[Operation]] = {}
    for op in found:
        parts_of.setdefault(op.parent if op.parent in whole else "", []).append(op)
    first = parts_of.pop("", [])
    return [each for op in first for each in (op, *parts_of.get(op.operation_id, []))]


def movement(op: Operation) -> str:
    """One line: what is moved, where to, how far it is."""
    where = parts(op) if op.HasField("parts") else route(op) if op.vm_id else ""
    text = " ".join(filter(None, (op.kind, subject(op), where, word(op, "phase"))))
    if op.HasField("failure"):
        text += f" ({op.failure.reason}: {op.failure.message})"
    elif op.cancel_requested and not op.done:
        text += " (cancel requested)"
    return text


def progress(op: Operation) -> str:
    """How much has been copied, and how fast; empty if nothing is known."""
    if not op.HasField("progress") or not op.progress.bytes_total:
        return ""
    now = op.progress
    text = f"{size(now.bytes_processed)} of {size(now.bytes_total)}"
    if now.disk_bytes_total:
        disks = f"{size(now.disk_bytes_processed)} of {size(now.disk_bytes_total)}"
        text += f" (of it disks {disks})"
    return f"{text}, {size(now.bytes_per_second)}/s" if now.bytes_per_second else text


def phases(op: Operation) -> str:
    """Each phase with its time."""
    return listed(
        word(p, "phase") + (f" {span(p.duration_ms)}" if p.duration_ms else "") for p in op.phases
    )


def receipt(op: Operation) -> Pairs:
    """Everything that the operation left behind, or has done so far."""
    yield "Operation", op.operation_id
    yield from _about(op)
    yield "Phase", word(op, "phase")
    yield from _outlook(op)
    yield "Requested by", or_none(op.requested_by)
    yield "Created", moment(op.created_at)
    yield "Ended", moment(op.ended_at)
    if op.HasField("failure"):
        yield "Failure", f"{op.failure.reason}: {op.failure.message}"
    if op.vm_id:
        yield from _of_a_move(op)


def _about(op: Operation) -> Pairs:
    if op.parent:
        yield "Part of", op.parent
    if op.vm_id:
        yield "VM", op.vm_id
        yield "Route", route(op)
        yield "Kind", word(op, "move_kind")
    else:
        yield "Kind", op.kind
        yield "Subject", op.subject
    if op.HasField("parts"):
        yield "Parts", parts(op)


def _outlook(op: Operation) -> Pairs:
    for reason in op.waits_for:
        yield "Waits", reason
    if op.HasField("expected_end"):
        yield "Expected end", moment(op.expected_end)
    if op.priority:
        yield "Priority", str(op.priority)


def _of_a_move(op: Operation) -> Pairs:
    yield "Epoch", f"{op.epoch_before} -> {op.epoch_after}" if op.epoch_after else "unchanged"
    if op.HasField("budget"):
        yield "Budget", budget(op.budget)
    yield "Phases", phases(op)
    if op.HasField("predicted"):
        yield "Expected", expected(op.predicted)
    if not op.done and progress(op):
        yield "Copied so far", progress(op)
    if op.progress.HasField("in_step_at"):
        missing = f"{size(op.progress.bytes_remaining)} to be written"
        yield "In step", f"{moment(op.progress.in_step_at)} (when that was last heard), {missing}"
    if op.HasField("receipt"):
        yield from _figures(op.receipt, op.predicted)


def budget(given: operations_pb2.Budget) -> str:
    """`400 ms standing still, or slow; switched within 60 s`."""
    enum = given.DESCRIPTOR.fields_by_name["if_over"].enum_type
    text = f"{span(given.downtime_ms)} standing still, or {enum_word(enum, given.if_over)}"
    return f"{text}; switched within {span(given.deadline_ms)}" if given.deadline_ms else text


def expected(predicted: operations_pb2.Prediction) -> str:
    """`1.20 s, of it 45 ms standing still; measured: …`."""
    enum = predicted.DESCRIPTOR.fields_by_name["basis"].enum_type
    ground = _GROUNDS.get(predicted.basis) or enum_word(enum, predicted.basis)
    text = f"{span(predicted.total_ms)}, standing still for {span(predicted.downtime_ms)}"
    disks = f", {size(predicted.disk_bytes)} of disks copied" if predicted.disk_bytes else ""
    return f"{text}{disks} ({ground})"


_GROUNDS = {
    operations_pb2.BASIS_ASSUMED: "assumed: nothing was measured on this way",
    operations_pb2.BASIS_MEASURED: "from how fast it writes, and what this way has carried",
    operations_pb2.BASIS_ALIKE: "as its last moves on this way went",
}


def _figures(done: operations_pb2.Receipt, predicted: operations_pb2.Prediction) -> Pairs:
    yield "Total", span(done.total_ms) + _against(done.total_ms, predicted.total_ms)
    still = f"{span(done.downtime_ms)}, as the hypervisor measured it"
    still += _against(done.downtime_ms, predicted.downtime_ms)
    yield "Downtime", still if done.downtime_ms else "not measured"
    yield "Switch", span(done.switch_ms)
    yield "Blackout", blackout(done)
    if done.suspended:
        yield "Budget not kept", "the guest stood still for the rest of its copy"
    if done.slowed_percent:
        yield "Slowed down", f"{done.slowed_percent} % of its CPU time, in the end"
    speed = f", {size(done.bytes_per_second)}/s" if done.bytes_per_second else ""
    disks = f", of it disks {size(done.disk_bytes)}" if done.disk_bytes else ""
    yield "Copied", f"{size(done.bytes)}{disks} in {done.iterations} iterations{speed}"
    if done.bytes_per_second:
        yield "Written meanwhile", f"{size(done.dirty_bytes_per_second)}/s"
    before, after = done.policy_hash_before, done.policy_hash_after
    same = "the same before and after" if before == after else f"CHANGED, was {short(before)}"
    yield "Policy", f"{short(after)}, {same}"


def is_coming(op: Operation) -> bool:
    """Something of the receipt will be told in a moment, if it is ever (docs/receipts.md)."""
    done = op.receipt
    listens = done.observer and not (done.HasField("blackout_ms") or done.blackout_why)
    live = op.vm_id and op.move_kind == operations_pb2.MOVE_KIND_LIVE
    moved = op.phase == operations_pb2.PHASE_SUCCEEDED
    return bool(live and moved and (listens or not done.downtime_ms))


def blackout(done: operations_pb2.Receipt) -> str:
    """`83 ms, as h3 heard it`; or why nobody did."""
    if done.HasField("blackout_ms"):
        return f"{span(done.blackout_ms)}, as {done.observer} heard it from beside"
    if done.observer and not done.blackout_why:
        return f"not known yet: {done.observer} listens"
    return "not measured" + (f": {done.blackout_why}" if done.blackout_why else "")


def _against(happened: float, predicted: float) -> str:
    """What happened beside what was expected of it, as a factor."""
    return f"; {happened / predicted:.2f} of what was expected" if happened and predicted else ""


COLUMNS: list[Column[Operation]] = [
    Column("OPERATION", lambda o: ("  " if o.parent else "") + o.operation_id),
    Column("VM", lambda o: o.vm_id[:8] or f"{o.kind} {o.subject}"),
    Column("ROUTE", lambda o: route(o) if o.vm_id else "-"),
    Column("PHASE", lambda o: word(o, "phase")),
    Column("WAITS FOR", lambda o: or_none(waiting(o))),
    Column("CREATED", lambda o: moment(o.created_at)),
    Column("EXPECTED END", lambda o: moment(o.expected_end)),
    Column("PRIORITY", lambda o: str(o.priority), wide=True),
    Column("FULL VM ID", lambda o: o.vm_id, wide=True),
    Column("ENDED", lambda o: moment(o.ended_at), wide=True),
    Column("REQUESTED BY", lambda o: or_none(o.requested_by), wide=True),
    Column("DOWNTIME", lambda o: _downtime(o), wide=True),
    Column("FAILURE", lambda o: or_none(o.failure.reason), wide=True),
]


def _downtime(op: Operation) -> str:
    return span(op.receipt.downtime_ms) if op.HasField("receipt") else "-"
