"""Moves, planned or carried out: of a VM, of a group, and of everything on a vServer."""

from __future__ import annotations

from typing import TypeAlias

import click

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from vcenter.ctl import output
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure, advice
from vcenter.ctl.follow import finish, follow
from vcenter.ctl.how import How, move_options
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.movement import expected, receipt
from vcenter.ctl.output import Pairs
from vcenter.ctl.words import or_none, size, word

Planned: TypeAlias = signaling_pb2.RelocateResponse | signaling_pb2.ReplicateResponse


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
      vctl vm move web-1 --to host-7 --copy-disks
      vctl vm move web-1 --to host-7 --downtime 200ms --if-over refuse --deadline 60s
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
        told(app, answer)
    else:
        finished(app, answer.operation, wait=how.wait)


def finished(app: App, operation: operations_pb2.Operation, *, wait: bool) -> None:
    """Waits for its end, unless told otherwise."""
    app.say(f"Operation {operation.operation_id}")
    if not wait:
        output.one(app, operation, receipt(operation), operation.operation_id)
        return
    finish(app, follow(app, operation.operation_id, known=True))


def told(
    app: App, answer: signaling_pb2.RelocateResponse | signaling_pb2.ReplicateResponse
) -> None:
    """What would be done; raises `Failure` if it cannot be."""
    output.one(app, answer, _plan_pairs(answer), answer.destination)
    if answer.objections:
        count = len(answer.objections)
        raise Failure(Exit.REFUSED, f"the move would be refused: {count} objection(s)")


def _plan_pairs(answer: Planned) -> Pairs:
    if len(answer.moves) != 1:
        yield "VMs to move", str(len(answer.moves))
    for move in answer.moves:
        kind = word(move, "kind")
        yield "Move", f"{move.vm_id} {move.source} -> {move.destination}, {kind}"
        if move.creates:
            yield "Declares there", ", ".join(move.creates)
        if move.HasField("predicted"):
            yield "Expected", expected(move.predicted)
        for disk in move.disks:
            used = f"{size(disk.used_bytes)} of {size(disk.bytes)}"
            yield "Disk to copy", f"{disk.path}, {used}"
    if not answer.moves:
        yield "Destination", or_none(answer.destination)
    for objection in answer.objections:
        where = f" ({objection.server_id})" if objection.server_id else ""
        yield "Objection", f"{objection.reason}{where}: {objection.message}"
        yield "", advice(objection.reason)
    if not answer.objections:
        yield "Objections", "none: it can be done"
