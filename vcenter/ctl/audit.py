"""vctl audit: who changed what, and who was refused."""

from __future__ import annotations

from collections.abc import Iterator

import click

from common.pb.vsignal.v1 import directory_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.output import Column, many
from vcenter.ctl.words import moment, or_none

Entry = directory_pb2.AuditEntry
PAGE_SIZE = 500

COLUMNS: list[Column[Entry]] = [
    Column("WHEN", lambda e: moment(e.at)),
    Column("WHO", lambda e: e.who),
    Column("WHAT", lambda e: e.what),
    Column("SUBJECT", lambda e: or_none(e.subject)),
    Column("OUTCOME", lambda e: e.outcome),
    Column("COUNT", lambda e: str(e.count)),
    Column("REVISION", lambda e: or_none(str(e.revision or "")), wide=True),
    Column("FROM", lambda e: or_none(e.peer), wide=True),
    Column("ENTRY", lambda e: str(e.number), wide=True),
]


@click.command(cls=Command)
@click.option("--who", metavar="CALLER", help="Only of this caller: operator/alice, vserver/h1.")
@click.option("--subject", metavar="ID", help="Only about this VM (its UUID), operation, network …")
@click.option("--refused", is_flag=True, help="Only what was refused.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@command_with_app
def audit(app: App, who: str | None, subject: str | None, refused: bool, limit: int) -> None:
    """Lists who changed what, and who was refused, the newest first.

    The vCenter keeps it as JSON lines beside its database, too (audit_file in vcenter.toml).

    \b
    Examples:
      vctl audit --refused
      vctl audit --who operator/alice -o wide
      vctl audit --subject 6f1c2f0e-8f0a-4f6e-9d53-0c2b1f1a2b3c -o json
    """
    request = directory_pb2.ListAuditRequest(
        who=who or "",
        subject=subject or "",
        refused_only=refused,
        page_size=min(limit, PAGE_SIZE),
    )
    found = [entry for entry, _ in zip(_entries(app, request), range(limit), strict=False)]
    many(app, found, COLUMNS, lambda e: str(e.number), "No entry.")


def _entries(app: App, request: directory_pb2.ListAuditRequest) -> Iterator[Entry]:
    while True:
        answer = app.client.call(app.client.directory.ListAudit, request)
        yield from answer.entries
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
