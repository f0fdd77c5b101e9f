"""The audit log: every mutation and every refusal, durable, bounded, and read in pages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.errors import Reason, Refusal
from common.pb.vsignal.v1 import directory_pb2, inventory_pb2, types_pb2
from common.pb.vsignal.v1 import signaling_pb2 as pb
from tests.support.calls import refusal_of
from tests.support.lab import Lab, running_lab
from tests.support.nouns import interface, mac, vm, vm_id
from vcenter.audit import Audit, Origin
from vcenter.journal import FILES, Entry, FileJournal, Journal, MemoryJournal


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    audit = str(tmp_path / "audit.jsonl")
    async with running_lab("sqlite", clock=SystemClock(), audit_file=audit) as lab:
        yield lab


async def entries(lab: Lab, **narrowed: Any) -> list[directory_pb2.AuditEntry]:
    """Oldest first, when all of them are written."""
    await lab.center.ledger.audit.flush()
    request = directory_pb2.ListAuditRequest(**narrowed)
    answer = await lab.operator.directory.ListAudit(request)
    return list(reversed(answer.entries))


async def test_who_did_what_at_which_revision_and_from_where(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    first = (await lab.record(vm_id(1))).revision
    await host.register(vm(1))  # says nothing new
    await host.deregister(vm_id(1), 1)
    told = await entries(lab, subject=vm_id(1))
    assert [(e.who, e.what, e.outcome, e.revision) for e in told] == [
        ("vserver/host-1", "Register", "done", first),
        ("vserver/host-1", "Deregister", "done", lab.revision),
    ]
    assert all(e.peer.startswith("unix:") and e.count == 1 and e.at.seconds for e in told)
    names = {e.what for e in await entries(lab, who="operator/alice")}
    assert names == {"PutTenant", "PutNetwork"}


async def test_refusals_are_there_too_with_their_reason(lab: Lab) -> None:
    host = await lab.agent("host-1")
    await host.register(vm(1))
    stolen = vm(2, interfaces=[interface(2, mac=mac(1))])
    await refusal_of(host.register(stolen))
    delete = inventory_pb2.DeleteTenantRequest(tenant_id="blue")
    for name in ("operator/vic/view", "", "tenant/blue"):
        await refusal_of(lab.client(name).inventory.DeleteTenant(delete))
    await refusal_of(lab.operator.inventory.DeleteTenant(delete))
    told = await entries(lab, refused_only=True)
    assert {(e.who, e.what, e.outcome) for e in told} == {
        ("vserver/host-1", "Register", "CLAIM_HELD"),
        ("operator/vic", "DeleteTenant", "FORBIDDEN"),
        ("unidentified", "DeleteTenant", "UNIDENTIFIED"),
        ("tenant/blue", "DeleteTenant", "FORBIDDEN"),
        ("operator/alice", "DeleteTenant", "IN_USE"),
    }
    assert {e.subject for e in told} == {vm_id(2), "blue"} and {e.revision for e in told} == {0}


async def test_a_groups_members_are_one_entry(lab: Lab) -> None:
    host = await lab.agent("host-1")
    members = [pb.RegisterRequest(vm=vm(n), state=types_pb2.VM_STATE_RUNNING) for n in range(1, 51)]
    members[7].vm.interfaces[0].mac = mac(1)
    requests = [
        pb.SyncGroupRequest(begin=pb.SyncGroupRequest.Begin(tenant="blue", group="web")),
        pb.SyncGroupRequest(chunk=pb.SyncGroupRequest.Chunk(members=members)),
    ]
    async for _ in host.client.signaling.SyncGroup(iter(requests)):
        pass
    told = [(e.what, e.outcome, e.count) for e in await entries(lab, who="vserver/host-1")]
    bulk = [("Register", "done", 49), ("Register", "CLAIM_HELD", 1)]
    assert told == [("AttachServer", "done", 1), ("PutGroup", "done", 1), *bulk]


async def test_it_outlives_a_restart_and_is_for_the_owners_eyes(lab: Lab, tmp_path: Path) -> None:
    before = await entries(lab)
    await lab.restart()
    await lab.group()
    after = await entries(lab)
    assert after[: len(before)] == before
    assert [e.number for e in after] == list(range(1, len(after) + 1))
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_pages_go_back_to_the_beginning(lab: Lab) -> None:
    for number in range(25):
        await lab.group(f"g-{number}")
    whole = [e.number for e in await entries(lab)]
    request, found = directory_pb2.ListAuditRequest(page_size=10), []
    while True:
        answer = await lab.operator.directory.ListAudit(request)
        found += [e.number for e in answer.entries]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert found == whole[::-1] and len(found) > 25
    request.page_token = "x"
    refusal = await refusal_of(lab.operator.directory.ListAudit(request))
    assert refusal.reason is Reason.INVALID_FIELD


def entry(number: int) -> Entry:
    return Entry(number, "operator/a", "unix:", "PutGroup", f"g-{number}", number, "done")


def everything(journal: Journal) -> list[Entry]:
    return journal.read(0, lambda _: True, 100_000)[0]


def test_the_files_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "a", 20_000)
    for number in range(2_000):
        journal.append([entry(number)])
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 25_000 and len(list(tmp_path.iterdir())) <= FILES
    kept = [e.at_ms for e in everything(journal)]
    assert kept == list(range(1_999, 1_999 - len(kept), -1)) and len(kept) > 50


def test_a_line_that_a_crash_has_torn_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    FileJournal(path, 1 << 20).append([entry(1), entry(2)])
    torn = path.read_bytes()[:-9]
    path.write_bytes(torn)
    journal = FileJournal(path, 1 << 20)
    journal.append([entry(3)])
    assert [(e.number, e.at_ms) for e in everything(journal)] == [(2, 3), (1, 1)]
    assert [json.loads(line)["at_ms"] for line in path.read_text().splitlines()[::2]] == [1, 3]


async def test_a_flood_of_like_refusals_is_one_line_with_their_number() -> None:
    journal = MemoryJournal()
    audit = Audit(journal, SystemClock())
    refusal = Refusal(Reason.FORBIDDEN, "no")
    for port in range(5_000):
        by = Origin("tenant/blue", f"ipv4:10.0.0.1:{port}")
        audit.refused(inventory_pb2.DeleteTenantRequest(tenant_id="red"), "Delete", refusal, by)
    await audit.flush()
    (told,) = everything(journal)
    assert (told.count, told.outcome, told.subject) == (5_000, "FORBIDDEN", "red")


async def test_a_journal_that_cannot_be_written_holds_nobody_up(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "missing" / "audit.jsonl")
    async with running_lab(audit_file=nowhere) as lab:
        await lab.group()
        await lab.center.ledger.audit.flush()
        await lab.group("other")
