"""vctl vm move: a live move, planned or carried out."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import signaling_pb2
from vcenter.ctl import output
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure, advice
from vcenter.ctl.follow import finish, follow
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.movement import receipt
from vcenter.ctl.output import Pairs
from vcenter.ctl.words import or_none


@click.command(cls=Command)
@click.argument("key")
@click.option(
    "--to",
    "destination",
    metavar="SERVER",
    help="The destination; without it, the least loaded vServer that fits.",
)
@click.option("--plan", is_flag=True, help="Only say whether it could be done, and if not, why.")
@click.option("--wait/--no-wait", default=True, help="Wait for the end (default), or do not.")
@click.option(
    "--epoch", type=click.IntRange(min=1), help="Refuse unless this is still the VM's epoch."
)
@command_with_app
def move(
    app: App, key: str, destination: str | None, plan: bool, wait: bool, epoch: int | None
) -> None:
    """Moves a running VM to another vServer, and prints the receipt.

    While it runs, progress is on stderr. Ctrl-C and --timeout end the waiting, not the move.

    \b
    Examples:
      vctl vm move web-1 --plan
      vctl vm move web-1 --to host-7
      vctl vm move web-1 --to host-7 --timeout 10m -o json
      vctl op follow "$(vctl vm move web-1 --no-wait -o name)"
    """  # fmt: skip
    request = signaling_pb2.RelocateRequest(
        vm_id=find_vm_id(app.client, key),
        destination=destination or "",
        plan_only=plan,
        epoch=epoch or 0,
    )
    answer = app.client.call(app.client.signaling.Relocate, request)
    if plan:
        _told(app, answer)
        return
    operation = answer.operation
    app.say(f"Operation {operation.operation_id}")
    if not wait:
        output.one(app, operation, receipt(operation), operation.operation_id)
        return
    finish(app, follow(app, operation.operation_id, known=True))


def _told(app: App, answer: signaling_pb2.RelocateResponse) -> None:
    output.one(app, answer, _plan_pairs(answer), answer.destination)
    if answer.objections:
        count = len(answer.objections)
        raise Failure(Exit.REFUSED, f"the move would be refused: {count} objection(s)")


def _plan_pairs(answer: signaling_pb2.RelocateResponse) -> Pairs:
    yield "Destination", or_none(answer.destination)
    for objection in answer.objections:
        where = f" ({objection.server_id})" if objection.server_id else ""
        yield "Objection", f"{objection.reason}{where}: {objection.message}"
        yield "", advice(objection.reason)
    if not answer.objections:
        yield "Objections", "none: it can be done"
