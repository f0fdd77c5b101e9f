"""vctl op: long work, followed, waited for and cancelled."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import operations_pb2
from vcenter.ctl import follow as following
from vcenter.ctl import output
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.movement import COLUMNS, as_tree, movement, receipt
from vcenter.ctl.output import Pairs

GetOperation = operations_pb2.GetOperationRequest


@click.group(cls=Group)
def op() -> None:
    """Operations: moves that are under way, and the receipts of those that ended."""


@op.command("list")
@click.option("--vm", "key", metavar="KEY", help="Only those of this VM.")
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@click.option("--parent", metavar="OPERATION", help="Only the parts of this operation.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="The newest N; 0 = all.")
@command_with_app
def list_(app: App, key: str | None, active: bool, parent: str | None, limit: int) -> None:
    """Lists operations, newest first, the parts of each below it.

    Of one that is queued it says what it waits for, and of each when it should end: an estimate.

    \b
    Examples:
      vctl op list --active
      vctl op list --vm web-1 -o wide --limit 10
    """
    request = operations_pb2.ListOperationsRequest(active_only=active, parent=parent or "")
    if key is not None:
        request.vm_id = find_vm_id(app.client, key)
    found = app.client.list_operations(request, limit)
    shown = found if app.output == "name" else as_tree(found)
    output.many(app, shown, COLUMNS, lambda o: o.operation_id, "No operation matches.")


@op.command()
@click.argument("operation_id", metavar="OPERATION")
@command_with_app
def show(app: App, operation_id: str) -> None:
    """Shows an operation: its phases, its parts, and its receipt once it has ended.

    \b
    Example:
      vctl op show 0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10 -o json
    """
    request = GetOperation(operation_id=operation_id)
    found = app.client.call(app.client.operations.Get, request)
    output.one(app, found, [*receipt(found), *_parts(app, found)], operation_id)


def _parts(app: App, found: operations_pb2.Operation) -> Pairs:
    if app.output in ("table", "wide") and found.HasField("parts"):
        request = operations_pb2.ListOperationsRequest(parent=found.operation_id)
        for part in app.client.list_operations(request, 0):
            yield "Part", f"{part.operation_id} {movement(part)}"


@op.command()
@click.argument("operation_id", metavar="OPERATION")
@command_with_app
def wait(app: App, operation_id: str) -> None:
    """Waits silently until an operation has ended; 5 if it takes longer than --timeout.

    \b
    Example:
      vctl op wait 0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10 --timeout 10m
    """
    following.finish(app, following.follow(app, operation_id, quiet=True))


@op.command()
@click.argument("operation_id", metavar="OPERATION")
@command_with_app
def follow(app: App, operation_id: str) -> None:
    """Shows the progress of an operation on stderr until it has ended, then its receipt.

    \b
    Example:
      vctl op follow 0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10
    """
    following.finish(app, following.follow(app, operation_id))


@op.command()
@click.argument("operation_id", metavar="OPERATION")
@command_with_app
def cancel(app: App, operation_id: str) -> None:
    """Cancels an operation; refused once the switch has begun. The VM stays where it is.

    \b
    Example:
      vctl op cancel 0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10
    """
    request = operations_pb2.CancelOperationRequest(operation_id=operation_id)
    asked = app.client.call(app.client.operations.Cancel, request)
    output.one(app, asked, receipt(asked), operation_id)
    app.say(movement(asked))
