"""vctl follows operations: progress, receipts, waiting, what stands in the way."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from rich.console import Console

from common.pb.vsignal.v1 import (
    operations_pb2,
    signaling_pb2,
    types_pb2,
)
from tests.support.vctl import (
    ID,
    OP,
    ROOT,
    Center,
    center,
    operation,
)
from vcenter.ctl.main import run
from vcenter.ctl.reporter import Bar

__all__ = ["center"]  # fixtures


def test_a_receipt_is_waited_for_until_it_is_whole(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its success came first; and what never comes is not waited for for long."""
    live = {"done": True, "epoch_after": 5, "move_kind": operations_pb2.MOVE_KIND_LIVE}
    told = [
        operations_pb2.Receipt(total_ms=900, observer="h3"),
        operations_pb2.Receipt(total_ms=900, observer="h3", downtime_ms=41),
        operations_pb2.Receipt(total_ms=900, observer="h3", downtime_ms=41, blackout_ms=83),
    ]
    coming = [operation(operations_pb2.PHASE_SUCCEEDED, **live, receipt=each) for each in told]
    center.answers["Follow"] = lambda *_: iter(coming[:1])
    later = iter(coming[1:])
    center.answers["Get"] = lambda *_: next(later)
    assert run(["op", "wait", OP]) == 0
    whole = capsys.readouterr().out
    assert "41 ms, as the hypervisor measured it" in whole and "83 ms, as h3 heard it" in whole
    center.answers["Get"] = lambda *_: coming[0]
    assert run(["op", "wait", OP]) == 0
    assert "not known yet: h3 listens" in capsys.readouterr().out


def test_a_move_to_its_receipt(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    done = operation(
        operations_pb2.PHASE_SUCCEEDED, done=True, epoch_after=5,
        receipt=operations_pb2.Receipt(
            total_ms=2310, downtime_ms=41, switch_ms=38, bytes=3 * 2**29, iterations=3,
            policy_hash_before="ab" * 32, policy_hash_after="ab" * 32,
        ),
    )  # fmt: skip
    copying = operation(
        operations_pb2.PHASE_COPYING,
        progress=operations_pb2.Progress(bytes_total=2**30, bytes_processed=2**29),
    )
    center.answers["Relocate"] = lambda *_: signaling_pb2.RelocateResponse(
        operation=operation(operations_pb2.PHASE_PREPARING)
    )
    center.answers["Follow"] = lambda *_: iter([copying, done])
    assert run(["vm", "move", ID, "--to", "host-2"]) == 0
    told = capsys.readouterr()
    assert "copying  512.00 MiB of 1.00 GiB" in told.err
    for text in ("41 ms", "1.50 GiB in 3 iterations", "the same before and after", "4 -> 5"):
        assert text in told.out
    assert run(["vm", "move", ID, "--no-wait", "-o", "name"]) == 0
    assert capsys.readouterr().out == f"{OP}\n"


def test_a_move_that_fails(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    failed = operation(
        operations_pb2.PHASE_FAILED, done=True,
        failure=operations_pb2.Failure(reason="HYPERVISOR_FAILED", message="no space"),
    )  # fmt: skip
    center.answers["Follow"] = lambda *_: iter([failed])
    assert run(["op", "wait", OP]) == 6
    assert "HYPERVISOR_FAILED: no space" in capsys.readouterr().err


def test_a_plan_with_objections(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    answer = signaling_pb2.RelocateResponse(destination="host-2")
    center.answers["Relocate"] = lambda *_: answer
    assert run(["vm", "move", ID, "--plan"]) == 0
    answer.objections.add(reason="NO_CAPACITY", message="needs 8 GiB, has 2", server_id="host-2")
    answer.objections.add(reason="NOT_ENFORCEABLE", message="vlan", server_id="host-2")
    assert run(["vm", "move", ID, "--plan"]) == 1
    told = capsys.readouterr().out
    assert "needs 8 GiB" in told
    assert "NOT_ENFORCEABLE" in told
    assert center.asked("Relocate")[0].plan_only


def test_a_drain_shows_its_parts_below_it(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = operations_pb2.Operation(
        operation_id=OP, kind="drain", subject="host-1", phase=operations_pb2.PHASE_UNDER_WAY,
        parts=operations_pb2.Parts(total=2, ended=1, succeeded=1),
    )  # fmt: skip
    part = operation(operations_pb2.PHASE_QUEUED, waits_for=["2 of 2 moves from host-1"])
    part.operation_id, part.parent = ID, OP
    listed = operations_pb2.ListOperationsResponse(operations=[part, whole])
    center.answers["List"] = lambda *_: listed
    center.answers["Get"] = lambda *_: whole
    assert run(["op", "list"]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(OP) and "1 of 2 ended, 1 succeeded" in first
    assert second.startswith(f"  {ID}") and "2 of 2 moves from host-1" in second
    assert run(["op", "show", OP]) == 0
    assert "2 of 2 moves" not in capsys.readouterr().err
    assert center.asked("List")[-1].parent == OP
    center.answers["Relocate"] = lambda *_: signaling_pb2.RelocateResponse(
        operation=whole, moves=[signaling_pb2.PlannedMove(vm_id=ID, destination="host-2")]
    )
    assert run(["server", "drain", "host-1", "--near", "fra", "--plan"]) == 0
    asked = center.asked("Relocate")[-1]
    assert (asked.server_id, asked.near, asked.plan_only) == ("host-1", "fra", True)
    assert run(["group", "move", "acme/web", "--to", "host-2", "--no-wait"]) == 0
    assert center.asked("Relocate")[-1].group.group == "web"
    assert run(["server", "drain", "host-1", "--near", "fra", "--to", "host-2"]) == 2


def test_a_cordon_is_told(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    center.answers["CordonServer"] = lambda request, _: types_pb2.Server(
        server_id=request.server_id, liveness=types_pb2.LIVENESS_ATTACHED, cordoned=request.cordoned
    )
    assert run(["server", "cordon", "host-1"]) == 0
    assert "attached, cordoned" in capsys.readouterr().out
    assert run(["server", "uncordon", "host-1"]) == 0
    assert "cordoned" not in capsys.readouterr().out


def test_a_cut_stream_is_taken_up_again(center: Center) -> None:
    calls = []

    def follow(_: object, context: grpc.ServicerContext) -> Iterator[operations_pb2.Operation]:
        calls.append(1)
        yield operation(operations_pb2.PHASE_COPYING)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield operation(operations_pb2.PHASE_SUCCEEDED, done=True)

    center.answers["Follow"] = follow
    assert run(["op", "follow", OP]) == 0
    assert len(calls) == 2


def _hanging(_: object, context: grpc.ServicerContext) -> Iterator[operations_pb2.Operation]:
    yield operation(operations_pb2.PHASE_COPYING)
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(20)


def test_waiting_ends_with_the_timeout(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    center.answers["Follow"] = _hanging
    assert run(["op", "follow", OP, "--timeout", "0.3"]) == 5
    assert f"vctl op cancel {OP}" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(center: Center) -> None:
    center.answers["Follow"] = _hanging
    # A shell's background job ignores it, and so would all it starts. Not by `preexec_fn`: what
    # runs between fork and exec does so beside gRPC's threads, and was seen to abort.
    heeding = "import signal, vcenter.ctl.main as m; "
    heeding += "signal.signal(signal.SIGINT, signal.default_int_handler); m.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", heeding, "op", "follow", OP],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not center.asked("Follow"):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"vctl op cancel {OP}" in told
    assert "Traceback" not in told


def test_the_bar_shows_bytes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal gets no bar
    terminal = io.StringIO()
    progress = operations_pb2.Progress(
        bytes_total=2**30, bytes_processed=2**29, bytes_per_second=2**27
    )
    with Bar(Console(file=terminal, force_terminal=True, width=100)) as bar:
        bar.show(operation(operations_pb2.PHASE_COPYING, progress=progress))
        bar.show(operation(operations_pb2.PHASE_SWITCHING))
    shown = terminal.getvalue()
    assert "switching" in shown
