"""vctl alert, vctl events: what a person should look at, and what happens."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl import watching
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command, Group
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.output import Column, many
from vcenter.ctl.words import listed, moment, or_none, word


@click.group(cls=Group)
def alert() -> None:
    """Alerts: duplicate claims, a VM in two places, and what else needs a person."""


def _evidence(item: types_pb2.Alert) -> str:
    return listed(f"{key}={value}" for key, value in sorted(item.evidence.items()))


COLUMNS: list[Column[types_pb2.Alert]] = [
    Column("RAISED", lambda a: moment(a.raised_at)),
    Column("SEVERITY", lambda a: word(a, "severity")),
    Column("REASON", lambda a: a.reason),
    Column("MESSAGE", lambda a: a.message),
    Column("VM", lambda a: or_none(a.vm_id), wide=True),
    Column("CAUSED BY", lambda a: or_none(a.server_id), wide=True),
    Column("EVIDENCE", _evidence, wide=True),
    Column("ALERT", lambda a: a.alert_id, wide=True),
]


@alert.command("list")
@click.option("--vm", "key", metavar="KEY", help="Only those about this VM.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@command_with_app
def list_(app: App, key: str | None, limit: int) -> None:
    """Lists alerts. With -o wide, the evidence too.

    \b
    Examples:
      vctl alert list -o wide
      vctl alert list --vm web-1 -o json
    """
    request = directory_pb2.ListAlertsRequest(limit=limit)
    if key is not None:
        request.vm_id = find_vm_id(app.client, key)
    answer = app.client.call(app.client.directory.ListAlerts, request)
    many(app, answer.alerts, COLUMNS, lambda a: a.alert_id, "No alert.")


@click.command(cls=Command)
@click.option("--vm", "key", metavar="KEY", help="Only those of this VM.")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--on", "server_id", metavar="SERVER", help="Only those of this vServer.")
@click.option("--network", help="Only those of this virtual network.")
@click.option("--snapshot", is_flag=True, help="First everything as it is, marked with =.")
@click.option(
    "--from",
    "revision",
    type=click.IntRange(min=1),
    metavar="REVISION",
    help="Begin after this revision instead of now.",
)
@command_with_app
def events(
    app: App,
    key: str | None,
    tenant: str | None,
    server_id: str | None,
    network: str | None,
    snapshot: bool,
    revision: int | None,
) -> None:
    """Shows changes and alerts as they happen, until Ctrl-C or --timeout.

    Each line begins with the revision of the change. With -o json, each line is one event.

    \b
    Examples:
      vctl events
      vctl events --network blue --snapshot
      vctl events --from 1042 -o json | jq -c 'select(.alert)'
    """  # fmt: skip
    if snapshot and revision:
        raise click.UsageError("--snapshot and --from exclude each other")
    request = watching.scope(app, tenant, server_id, network, key)
    if not snapshot:
        request.from_revision = revision or _now(app)
    watching.run(app, request, changes=watching.ALL, snapshot=snapshot)


def _now(app: App) -> int:
    """The ledger's revision now, without reading a snapshot of everything."""
    request = directory_pb2.ListAlertsRequest(limit=1)
    return app.client.call(app.client.directory.ListAlerts, request).revision
