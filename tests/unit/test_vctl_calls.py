"""vctl against a small real gRPC server: formats, pages, errors, waiting, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from rich.console import Console

from common.errors import Reason
from common.pb.vsignal.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    signaling_pb2,
    signaling_pb2_grpc,
    types_pb2,
)
from vcenter.ctl.main import run
from vcenter.ctl.reporter import Bar

ID = "0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10"
OTHER = "1c9e7c62-93f0-4d2c-8a55-3f2b6c1d7e11"
OP = "7d1a0000-0000-4000-8000-00000000000a"
ROOT = Path(__file__).parents[2]


def refusal(code: int, message: str, reason: str, **more: Any) -> grpc.Status:
    """A refusal as the vCenter sends it."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            reason=reason, domain="vsignal", metadata=more.get("evidence", {})
        )
    ]
    if "fields" in more:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=f, description=d) for f, d in more["fields"]]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if "retry" in more:
        delay = duration_pb2.Duration(seconds=more["retry"])
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in details]
    for holder, detail in zip(packed, details, strict=True):
        holder.Pack(detail)
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=packed))


Answer = Callable[[Any, grpc.ServicerContext], Any]


class Center:
    """Answers each method with what the test has put there, and remembers the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self.address = ""

    def serve(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append((method, request))
        self.metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        answer = self.answers.get(method)
        if answer is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this test")
        return answer(request, context)

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.requests if name == method]

    def refuse(self, method: str, status: grpc.Status) -> None:
        self.answers[method] = lambda _, context: context.abort_with_status(status)


def _servicer(base: type, center: Center) -> Any:
    methods = [name for name in vars(base) if name[0].isupper()]

    def handler(name: str) -> Any:
        return lambda _, request, context: center.serve(name, request, context)

    return type("Servicer", (base,), {name: handler(name) for name in methods})()


@pytest.fixture
def center(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Center]:
    center = Center()
    server = grpc.server(ThreadPoolExecutor(4))
    for module, service in (
        (directory_pb2_grpc, "Directory"),
        (inventory_pb2_grpc, "Inventory"),
        (operations_pb2_grpc, "Operations"),
        (signaling_pb2_grpc, "Signaling"),
    ):
        servicer = _servicer(getattr(module, f"{service}Servicer"), center)
        getattr(module, f"add_{service}Servicer_to_server")(servicer, server)
    center.address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    monkeypatch.setenv("VCTL_SERVER", center.address)
    monkeypatch.setenv("VCTL_IDENTITY", "operator/alice")
    yield center
    server.stop(None).wait()


def record(vm_id: str = ID, **fields: Any) -> types_pb2.VmRecord:
    machine = types_pb2.Vm(
        vm_id=vm_id,
        name=fields.get("name", "web-1"),
        tenant=fields.get("tenant", "acme"),
        interfaces=[types_pb2.Interface(mac="52:54:00:00:00:01", network="blue", vni=5001)],
    )
    place = types_pb2.Location(server_id="host-1", state=types_pb2.VM_STATE_RUNNING, epoch=4)
    return types_pb2.VmRecord(vm=machine, location=place, revision=17, profile_hash="ab" * 32)


def vms(*records: types_pb2.VmRecord) -> Answer:
    """Pages of one record each."""

    def answer(request: directory_pb2.ListVmsRequest, _: object) -> directory_pb2.ListVmsResponse:
        at = int(request.page_token or 0)
        following = str(at + 1) if at + 1 < len(records) else ""
        return directory_pb2.ListVmsResponse(
            records=records[at : at + 1], next_page_token=following
        )

    return answer


def operation(
    phase: operations_pb2.Phase.ValueType, done: bool = False, **fields: Any
) -> operations_pb2.Operation:
    return operations_pb2.Operation(
        operation_id=OP, kind="relocate", vm_id=ID, source="host-1", destination="host-2",
        phase=phase, done=done, epoch_before=4, **fields,
    )  # fmt: skip


# ---- formats ----


def test_a_list_over_pages_in_every_format(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    center.answers["ListVms"] = vms(record(), record(OTHER, tenant="", name="[red]\x1b[2Jx"))
    assert run(["vm", "list"]) == 0
    table = capsys.readouterr().out
    assert all(len(line) <= 100 and line == line.rstrip() for line in table.splitlines())
    assert "closed: unassigned" in table
    assert "[red]\\x1b[2Jx" in table  # neither markup nor an escape sequence
    assert "EPOCH" not in table
    assert run(["-o", "wide", "vm", "list"]) == 0
    assert "EPOCH" in capsys.readouterr().out
    assert run(["vm", "-o", "table", "list", "-o", "name"]) == 0  # the last one wins
    assert capsys.readouterr().out == f"{ID}\n{OTHER}\n"
    assert run(["vm", "list", "-o", "json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert [item["vm"]["vm_id"] for item in as_json] == [ID, OTHER]
    assert as_json[0]["location"] == {
        "server_id": "host-1", "state": "VM_STATE_RUNNING", "epoch": "4"
    }  # fmt: skip
    assert run(["vm", "list", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == as_json


def test_an_empty_list(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    center.answers["ListVms"] = vms()
    assert run(["vm", "list"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "No VM matches.\n")
    assert run(["vm", "list", "-o", "json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_identity_and_environment(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    center.answers["ListTenants"] = lambda *_: inventory_pb2.ListTenantsResponse()
    assert run(["tenant", "list"]) == 0
    assert center.metadata["vsignal-identity"] == "operator/alice"
    monkeypatch.delenv("VCTL_SERVER")
    assert run(["--as", "operator/eve", "tenant", "list", "--server", center.address]) == 0
    assert center.metadata["vsignal-identity"] == "operator/eve"
    assert run(["tenant", "list", "--as", "operator/\u00e9"]) == 2


def test_a_domain_is_addressed_where_one_is_named(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.answers["ListTenants"] = lambda *_: inventory_pb2.ListTenantsResponse()
    assert run(["tenant", "list"]) == 0
    assert "vsignal-domain" not in center.metadata
    monkeypatch.setenv("VCTL_DOMAIN", "west")
    assert run(["tenant", "list"]) == 0
    assert center.metadata["vsignal-domain"] == "west"
    assert run(["tenant", "list", "--domain", "east"]) == 0
    assert center.metadata["vsignal-domain"] == "east"
    assert run(["tenant", "list", "--domain", "no such"]) == 2


def test_names_are_found_or_refused(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    center.answers["ListVms"] = vms(record(), record(OTHER, name="db"))
    center.answers["GetVm"] = lambda *_: directory_pb2.GetVmResponse(record=record(OTHER))
    assert run(["vm", "show", "db"]) == 0
    assert center.asked("GetVm")[0].key.vm_id == OTHER
    assert run(["vm", "show", "nobody"]) == 3
    center.answers["ListVms"] = vms(record(), record(OTHER))
    assert run(["vm", "show", "web-1"]) == 1
    assert OTHER in capsys.readouterr().err
    assert run(["vm", "show", "10.1.0.5"]) == 2


def test_where_prints_what_was_found_and_fails_for_the_rest(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    place = types_pb2.Location(server_id="host-1", state=types_pb2.VM_STATE_RUNNING, epoch=4)
    found = signaling_pb2.LookupResult(
        found=True, vm_id=ID, location=place, certainty=signaling_pb2.CERTAINTY_AUTHORITATIVE
    )
    center.answers["Lookup"] = lambda *_: signaling_pb2.LookupResponse(
        results=[found, signaling_pb2.LookupResult()]
    )
    assert run(["vm", "where", ID, "5001/10.1.0.5", "-o", "name"]) == 3
    told = capsys.readouterr()
    assert told.out == "host-1\n"
    assert "5001/10.1.0.5" in told.err


def test_assign(center: Center) -> None:
    center.answers["AssignVm"] = lambda *_: record()
    attachment = "52:54:00:00:00:01=blue:5001@10.1.0.5"
    assert run(["vm", "assign", ID, "--tenant", "acme", "--interface", attachment]) == 0
    sent = center.asked("AssignVm")[0]
    assert (sent.tenant, sent.group, sent.interfaces[0].vni) == ("acme", "", 5001)
    assert run(["vm", "assign", ID]) == 2
    assert run(["vm", "assign", ID, "--interface", "x"]) == 2


# ---- profiles and groups ----


def test_a_profile_is_shown_and_set(
    center: Center, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = record()
    whole.vm.group = "web"
    whole.vm.profile.vlan = 7
    answer = directory_pb2.GetVmResponse(
        record=whole, effective_profile=types_pb2.Profile(vlan=7, priority=3)
    )
    center.answers["GetVm"] = lambda *_: answer
    center.answers["SetVmProfile"] = lambda *_: record()
    assert run(["vm", "profile", ID, "--own"]) == 0
    assert capsys.readouterr().out == "vlan: 7\n"
    assert run(["profile", "show", f"vm/{ID}"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# effective: ")
    file = tmp_path / "p.yaml"
    file.write_text(shown)
    assert run(["profile", "set", f"vm/{ID}", str(file)]) == 0
    assert center.asked("SetVmProfile")[0].profile == answer.effective_profile
    assert run(["profile", "set", f"vm/{ID}", "--none"]) == 0
    assert not center.asked("SetVmProfile")[1].HasField("profile")
    assert run(["profile", "set", f"vm/{ID}"]) == 2
    assert run(["profile", "show", ID]) == 2
    file.write_text("vlan: 5000\nwhat: 1")
    capsys.readouterr()
    assert run(["profile", "set", f"vm/{ID}", str(file)]) == 1
    told = capsys.readouterr().err
    assert "vlan: expected a number" in told
    assert "what: unknown" in told


def test_a_group_keeps_its_profile_unless_told(center: Center, tmp_path: Path) -> None:
    there = types_pb2.Group(tenant="acme", name="web", profile=types_pb2.Profile(vlan=7))
    center.answers["GetGroup"] = lambda *_: there
    center.answers["PutGroup"] = lambda request, _: request.group
    file = tmp_path / "p.json"
    file.write_text("{}")
    assert run(["group", "set", "acme/web"]) == 0
    assert run(["group", "set", "acme/web", "--no-profile"]) == 0
    assert run(["group", "set", "acme/web", "--profile", str(file)]) == 0
    center.refuse("GetGroup", refusal(code_pb2.NOT_FOUND, "no group", "UNKNOWN_GROUP"))
    assert run(["group", "set", "acme/new"]) == 0
    assert run(["profile", "set", "group/acme/typo", str(file)]) == 3
    sent = [request.group for request in center.asked("PutGroup")]
    assert [g.HasField("profile") for g in sent] == [True, False, True, False]
    assert sent[0].profile.vlan == 7


# ---- errors ----


def test_a_refusal_is_told_whole(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    status = refusal(
        code_pb2.ALREADY_EXISTS, "52:54:00:00:00:01 in VNI 5001 is held", "CLAIM_HELD",
        evidence={"holder": OTHER, "server": "host-9"}, fields=[("interfaces[0].mac", "held")],
        retry=7,
    )  # fmt: skip
    center.refuse("AssignVm", status)
    assert run(["vm", "assign", ID, "--tenant", "acme"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    for text in ("CLAIM_HELD", "interfaces[0].mac: held", f"holder = {OTHER}",
                 Reason.CLAIM_HELD.explanation, "Try again in 7 s."):  # fmt: skip
        assert text in told.err


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (code_pb2.FAILED_PRECONDITION, "IN_USE", 1),
        (code_pb2.INVALID_ARGUMENT, "INVALID_FIELD", 1),
        (code_pb2.ABORTED, "STALE_EPOCH", 1),
        (code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED", 1),
        (code_pb2.NOT_FOUND, "UNKNOWN_TENANT", 3),
        (code_pb2.UNAVAILABLE, "STORE_FAILED", 4),
        (code_pb2.PERMISSION_DENIED, "FORBIDDEN", 7),
        (code_pb2.UNAUTHENTICATED, "UNIDENTIFIED", 7),
        (code_pb2.FAILED_PRECONDITION, "FROM_THE_FUTURE", 1),
    ],
)
def test_exit_codes(
    center: Center, capsys: pytest.CaptureFixture[str], code: int, reason: str, expected: int
) -> None:
    center.refuse("DeleteTenant", refusal(code, "no", reason))
    assert run(["tenant", "delete", "acme"]) == expected
    assert f"vctl: {reason}: no" in capsys.readouterr().err


def test_a_bare_status(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["network", "delete", "blue"]) == 1  # UNIMPLEMENTED, without details
    assert "does not know this call" in capsys.readouterr().err


def test_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--server", f"unix://{tmp_path}/none.sock"]
    assert run(["vm", "list", "--as", "operator/alice", *nowhere]) == 4
    assert "cannot be reached" in capsys.readouterr().err


def test_plain_text_is_asked_for_by_name_and_goes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["vm", "list", "--config", str(tmp_path / "none.toml")]) == 2
    assert "no certificate" in capsys.readouterr().err
    assert run(["vm", "list", "--as", "operator/alice", "--server", "192.0.2.1:7400"]) == 2
    assert "need a certificate" in capsys.readouterr().err


def test_no_answer_in_time(center: Center, capsys: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()
    center.answers["ListTenants"] = lambda *_: release.wait(5)
    assert run(["tenant", "list", "--timeout", "0.2s"]) == 5
    release.set()
    assert "is not known" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vm", "list", "--nope"]) == 2
    assert run(["vm", "list", "--timeout", "soon"]) == 2
    assert run(["group", "show", "acme"]) == 2
    assert run(["--help"]) == 0


# ---- operations ----


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


def test_the_bar_shows_bytes_and_rate() -> None:
    terminal = io.StringIO()
    progress = operations_pb2.Progress(
        bytes_total=2**30, bytes_processed=2**29, bytes_per_second=2**27
    )
    with Bar(Console(file=terminal, force_terminal=True, width=100)) as bar:
        bar.show(operation(operations_pb2.PHASE_COPYING, progress=progress))
        bar.show(operation(operations_pb2.PHASE_SWITCHING))
    shown = terminal.getvalue()
    assert "switching" in shown


# ---- events ----


def test_events_begin_now_and_go_on_after_a_resync(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(
        request: directory_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[directory_pb2.WatchEvent]:
        if request.from_revision == 41:
            alert = types_pb2.Alert(
                alert_id="a1", reason="CLAIM_HELD", message="held", evidence={"holder": OTHER},
                severity=types_pb2.SEVERITY_WARNING,
            )  # fmt: skip
            yield directory_pb2.WatchEvent(revision=42, alert=alert)
            yield directory_pb2.WatchEvent(revision=42, bookmark=True)
            yield directory_pb2.WatchEvent(revision=43, resync="compacted")
            return
        yield directory_pb2.WatchEvent(revision=50, snapshot=True, vm=record())
        yield directory_pb2.WatchEvent(revision=50, bookmark=True)
        yield directory_pb2.WatchEvent(revision=51, vm_gone=ID)
        context.abort_with_status(refusal(code_pb2.UNAVAILABLE, "bye", "SHUTTING_DOWN"))

    center.answers["ListAlerts"] = lambda *_: directory_pb2.ListAlertsResponse(revision=41)
    center.answers["Watch"] = watch
    assert run(["events"]) == 4
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) == 2
    assert "42" in lines[0]
    assert f"WARNING CLAIM_HELD: held (holder={OTHER})" in lines[0]
    assert f"{ID}  gone" in lines[1]
    assert "compacted" in told.err
    assert "vctl events --from 51" in told.err
    assert run(["events", "-o", "json", "--from", "41"]) == 4
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["revision"] for event in printed] == ["42", "51"]


def test_one_scope(center: Center) -> None:
    assert run(["vm", "watch", "--tenant", "acme", "--network", "blue"]) == 2
    assert run(["events", "--snapshot", "--from", "3"]) == 2


# ---- help that needs no vCenter ----


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "claim-held"]) == 0
    assert Reason.CLAIM_HELD.explanation in capsys.readouterr().out
    assert run(["explain", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [reason.name for reason in Reason]
    assert run(["explain", "STALE_EPOK"]) == 3
    assert "STALE_EPOCH" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_VCTL_COMPLETE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out.startswith("vctl ")


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    from vcenter.ctl.main import cli

    for noun, command in cli.commands.items():
        verbs = getattr(command, "commands", {"": command})
        for verb, leaf in verbs.items():
            assert "Example" in (leaf.help or ""), f"{noun} {verb}"
