"""What vctl says when it is refused, not answered, or called wrongly; its exit codes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from google.rpc import code_pb2

from common.errors import Reason
from tests.support.vctl import (
    ID,
    OTHER,
    Center,
    center,
    refusal,
)
from vcenter.ctl.main import run

__all__ = ["center"]  # fixtures


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
