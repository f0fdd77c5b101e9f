"""vctl tells events, and helps without a vCenter."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import code_pb2

from common.errors import Reason
from common.pb.vsignal.v1 import (
    directory_pb2,
    types_pb2,
)
from tests.support.vctl import (
    ID,
    OTHER,
    Center,
    center,
    record,
    refusal,
)
from vcenter.ctl.main import run

__all__ = ["center"]  # fixtures


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
    assert "vctl events --from 50" in told.err, "51 may have more changes than were heard"
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
