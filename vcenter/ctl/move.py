"""Moves, planned or carried out: of a VM, of a group, and of everything on a vServer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from vcenter.ctl import output
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure, advice
from vcenter.ctl.follow import finish, follow
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.movement import expected, receipt
from vcenter.ctl.output import Pairs
from vcenter.ctl.words import or_none, word

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class How:
    """What all kinds of moves are asked for with."""

    destination: str
    near: str
    priority: int
    kind: str
    plan: bool
    wait: bool

    def request(self, **subject: Any) -> signaling_pb2.RelocateRequest:
        return signaling_pb2.RelocateRequest(
            destination=self.destination,
            near=self.near,
            priority=self.priority,
            kind=operations_pb2.MoveKind.Value(f"MOVE_KIND_{self.kind.upper()}"),
            plan_only=self.plan,
            **subject,
        )


_OPTIONS = (
    click.option(
        "--to",
        "destination",
        metavar="[DOMAIN/]SERVER",
        default="",
        help="The destination; without it, the least loaded vServer that fits. DOMAIN/SERVER is one"
        " of another domain, DOMAIN/ any that fits there.",
    ),
    click.option(
        "--near",
        metavar="PLACE",
        default="",
        help="The vServer nearest to it that fits: a site, a vServer, or LATITUDE,LONGITUDE.",
    ),
    click.option(
        "--priority",
        type=click.IntRange(-100, 100),
        default=0,
        help="In the queue, higher ones have their turn first; 0.",
    ),
    click.option(
        "--kind",
        type=click.Choice(["live", "suspend", "cold"]),
        default="live",
        help="Of VMs that run: live; suspend: they stand still meanwhile; cold: they are shut down,"
        " moved, and started. A VM that is off is moved as it is.",
    ),
    click.option("--plan", is_flag=True, help="Only say what would be done, or why it cannot be."),
    click.option("--wait/--no-wait", default=True, help="Wait for the end (default), or do not."),
)


def move_options(function: F) -> F:
    """The options of a move, handed over as one `how`."""

    @wraps(function)
    def wrapper(*args: Any, **given: Any) -> Any:
        names = ("destination", "near", "priority", "kind", "plan", "wait")
        how = How(**{name: given.pop(name) for name in names})
        if how.destination and how.near:
            raise click.UsageError("--to and --near exclude each other")
        return function(*args, how=how, **given)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper  # type: ignore[return-value]


@click.command(cls=Command)
@click.argument("key")
@move_options
@click.option(
    "--epoch", type=click.IntRange(min=1), help="Refuse unless this is still the VM's epoch."
)
@command_with_app
def move(app: App, key: str, how: How, epoch: int | None) -> None:
    """Moves a VM to another vServer, and prints the receipt.

    While it runs, progress is on stderr. Ctrl-C and --timeout end the waiting, not the move. A move
    waits for its turn where too many are under way; `vctl op list` says why.

    \b
    Examples:
      vctl vm move web-1 --plan
      vctl vm move web-1 --to host-7
      vctl vm move web-1 --to host-7 --kind suspend
      vctl vm move web-1 --to west/host-3
      vctl vm move web-1 --to west/ --plan
      vctl vm move web-1 --near fra1 --priority 10
      vctl vm move web-1 --to host-7 --timeout 10m -o json
      vctl op follow "$(vctl vm move web-1 --no-wait -o name)"
    """
    vm_id = find_vm_id(app.client, key)
    carry_out(app, how.request(vm_id=vm_id, epoch=epoch or 0), how)


def carry_out(app: App, request: signaling_pb2.RelocateRequest, how: How) -> None:
    """Plans, or starts and (unless told otherwise) waits for the end."""
    answer = app.client.call(app.client.signaling.Relocate, request)
    if how.plan:
        _told(app, answer)
        return
    operation = answer.operation
    app.say(f"Operation {operation.operation_id}")
    if not how.wait:
        output.one(app, operation, receipt(operation), operation.operation_id)
        return
    finish(app, follow(app, operation.operation_id, known=True))


def _told(app: App, answer: signaling_pb2.RelocateResponse) -> None:
    output.one(app, answer, _plan_pairs(answer), answer.destination)
    if answer.objections:
        count = len(answer.objections)
        raise Failure(Exit.REFUSED, f"the move would be refused: {count} objection(s)")


def _plan_pairs(answer: signaling_pb2.RelocateResponse) -> Pairs:
    if len(answer.moves) != 1:
        yield "VMs to move", str(len(answer.moves))
    for move in answer.moves:
        kind = word(move, "kind")
        yield "Move", f"{move.vm_id} {move.source} -> {move.destination}, {kind}"
        if move.creates:
            yield "Declares there", ", ".join(move.creates)
        if move.HasField("predicted"):
            yield "Expected", expected(move.predicted)
    if not answer.moves:
        yield "Destination", or_none(answer.destination)
    for objection in answer.objections:
        where = f" ({objection.server_id})" if objection.server_id else ""
        yield "Objection", f"{objection.reason}{where}: {objection.message}"
        yield "", advice(objection.reason)
    if not answer.objections:
        yield "Objections", "none: it can be done"
