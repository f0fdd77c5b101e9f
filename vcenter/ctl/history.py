"""vctl vm history, and where a VM was at a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click
from google.protobuf.timestamp_pb2 import Timestamp

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.keys import find_key, find_vm_id
from vcenter.ctl.output import Column, many
from vcenter.ctl.places import addresses, owner
from vcenter.ctl.words import NONE, moment, or_none, word

Entry = directory_pb2.VmHistoryEntry
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """`2026-03-01T14:03`, `14:03` (today), `90m` (ago); this machine's time zone unless said."""

    name = "TIME"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        now = datetime.now(UTC).astimezone()
        if ago := re.fullmatch(r"(\d+)([smhd])", value):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            if re.fullmatch(r"\d\d:\d\d(:\d\d)?", value):
                value = f"{now.date()}T{value}"
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            text = f"{value!r} is no time: write 2026-03-01T14:03, 14:03, or 90m for 90 minutes ago"
            self.fail(text, param, ctx)


def _place(entry: Entry) -> str:
    return entry.record.location.server_id if entry.HasField("record") else NONE


def _state(entry: Entry) -> str:
    return word(entry.record.location, "state") if entry.HasField("record") else "deregistered"


_ENTRIES: list[Column[Entry]] = [
    Column("WHEN", lambda e: moment(e.at)),
    Column("SERVER", _place),
    Column("STATE", _state),
    Column("EPOCH", lambda e: str(e.record.location.epoch or NONE)),
    Column("TENANT", lambda e: owner(e.record.vm) if e.HasField("record") else NONE),
    Column("ADDRESSES", lambda e: addresses(e.record.vm), wide=True),
    Column("OPERATION", lambda e: or_none(e.record.operation_id), wide=True),
    Column("REVISION", lambda e: str(e.revision), wide=True),
]
_WAS: list[Column[types_pb2.VmRecord]] = [
    Column("VM", lambda r: r.vm.vm_id),
    Column("NAME", lambda r: or_none(r.vm.name)),
    Column("SERVER", lambda r: or_none(r.location.server_id)),
    Column("STATE", lambda r: word(r.location, "state")),
    Column("SINCE", lambda r: moment(r.changed_at)),
    Column("EPOCH", lambda r: str(r.location.epoch), wide=True),
    Column("TENANT", lambda r: owner(r.vm), wide=True),
    Column("ADDRESSES", lambda r: addresses(r.vm), wide=True),
]


@click.command(cls=Command)
@click.argument("key")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="So many, the newest.")
@command_with_app
def history(app: App, key: str, limit: int) -> None:
    """Shows what became of a VM, the newest first, for as long as history is kept.

    \b
    Examples:
      vctl vm history web-1
      vctl vm history 5001/10.1.0.5 --limit 5 -o wide
    """
    request = directory_pb2.VmHistoryRequest(vm_id=find_vm_id(app.client, key), limit=limit)
    answer = app.client.call(app.client.directory.VmHistory, request)
    many(app, answer.entries, _ENTRIES, _place, "")
    if answer.HasField("kept_since"):
        app.say(f"History is kept from {moment(answer.kept_since)} on.")


def show_where_was(app: App, keys: tuple[str, ...], at: datetime) -> None:
    """Who had the identities then, which may be others than today."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    found, missing = [], []
    for key in keys:
        request = directory_pb2.WhereWasRequest(key=find_key(app.client, key), at=stamp)
        answer = app.client.call(app.client.directory.WhereWas, request)
        if answer.found:
            found.append(answer.record)
        else:
            missing.append(key)
    if found:
        many(app, found, _WAS, lambda r: r.location.server_id, "")
    if missing:
        raise Failure(Exit.NOT_FOUND, f"not there at {moment(stamp)}: {', '.join(missing)}")
