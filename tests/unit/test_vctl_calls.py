"""vctl against a small real gRPC server: what it asks for, and shows in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from google.rpc import code_pb2

from common.pb.vsignal.v1 import (
    directory_pb2,
    federation_pb2,
    inventory_pb2,
    signaling_pb2,
    types_pb2,
)
from tests.support.vctl import (
    ID,
    OTHER,
    Center,
    center,
    record,
    refusal,
    vms,
)
from vcenter.ctl.main import run

__all__ = ["center"]  # fixtures


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


def test_what_a_neighbour_may_learn_is_said_and_shown(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    told = federation_pb2.Domain(
        name="west",
        relation=federation_pb2.RELATION_PEER,
        tells=federation_pb2.TELLING_TENANTS,
        tenants=["acme", "blue"],
        tells_by_command=True,
    )
    own = federation_pb2.Domain(name="east", relation=federation_pb2.RELATION_SELF, domains=[told])
    center.answers["Tell"] = lambda *_: federation_pb2.TellResponse(domain=told)
    center.answers["ListDomains"] = lambda *_: federation_pb2.ListDomainsResponse(domain=own)
    assert run(["domain", "tell", "west", "tenants", "acme", "blue"]) == 0
    assert run(["domain", "tell", "west", "as-configured"]) == 0
    first, second = center.asked("Tell")
    assert (first.domain, first.tells) == ("west", federation_pb2.TELLING_TENANTS)
    assert (list(first.tenants), second.tells) == (["acme", "blue"], 0)
    for wrong in (["tenants"], ["lookups", "acme"], ["nothing"]):
        assert run(["domain", "tell", "west", *wrong]) == 2
    capsys.readouterr()
    for shown in (["tree"], ["show", "west"], ["list", "-o", "wide"]):
        assert run(["domain", *shown]) == 0
        assert "acme, blue (by command)" in capsys.readouterr().out
    assert run(["domain", "show", "mars"]) == 3


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
