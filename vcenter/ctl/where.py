"""vctl vm where: which vServer holds a VM."""

from __future__ import annotations

from datetime import datetime

import click

from common.pb.vsignal.v1 import signaling_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.history import Moment, show_where_was
from vcenter.ctl.keys import find_key
from vcenter.ctl.output import Column, many
from vcenter.ctl.words import age, moment, or_none, short, word

Result = signaling_pb2.LookupResult


def _certainty(result: Result) -> str:
    text = word(result, "certainty")
    if result.HasField("stale_since"):
        return f"{text} since {moment(result.stale_since)}"
    return f"{text}, {age(result.age)} old" if result.age.ToNanoseconds() else text


PLACES: list[Column[Result]] = [
    Column("VM", lambda r: r.vm_id),
    Column("NAME", lambda r: or_none(r.name)),
    Column("SERVER", lambda r: or_none(r.location.server_id)),
    Column("ADDRESS", lambda r: or_none(r.management_address)),
    Column("STATE", lambda r: word(r.location, "state")),
    Column("CERTAINTY", _certainty),
    Column("EPOCH", lambda r: str(r.location.epoch), wide=True),
    Column("VTEP", lambda r: or_none(r.vtep_address), wide=True),
    Column("AUTHORITY", lambda r: or_none(r.authority), wide=True),
    Column("POLICY", lambda r: short(r.profile_hash), wide=True),
]


@click.command(cls=Command)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--at", type=Moment(), help="Then, not now: 14:03, 2026-03-01T14:03, or 90m ago.")
@command_with_app
def where(app: App, keys: tuple[str, ...], at: datetime | None) -> None:
    """Says which vServer holds each VM, or held it. With -o name: only the vServers.

    \b
    Examples:
      vctl vm where web-1
      vctl vm where 5001/10.1.0.5 5001/52:54:00:00:00:01
      vctl vm where 5001/10.1.0.5 --at 14:03
      vctl server show "$(vctl vm where web-1 -o name)"
    """
    if at is not None:
        show_where_was(app, keys, at)
        return
    wanted = [find_key(app.client, key) for key in keys]
    request = signaling_pb2.LookupRequest(keys=wanted)
    results = app.client.call(app.client.directory.Lookup, request).results
    found = [result for result in results if result.found]
    if found:
        many(app, found, PLACES, lambda r: r.location.server_id, "")
    missing = [key for key, result in zip(keys, results, strict=True) if not result.found]
    if missing:
        silent = sorted({name for result in results for name in result.not_asked})
        reach = f"; these domains could not be asked: {', '.join(silent)}" if silent else ""
        raise Failure(Exit.NOT_FOUND, f"not found: {', '.join(missing)}{reach}")
