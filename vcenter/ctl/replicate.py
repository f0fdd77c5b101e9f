"""vctl vm replicate: a copy near the tenant, while the original runs."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.how import budget_options
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.move import finished, told


@click.command(cls=Command)
@click.argument("key")
@click.option(
    "--near",
    metavar="PLACE",
    required=True,
    help="Where the tenant is: a site, a vServer, or LATITUDE,LONGITUDE.",
)
@click.option("--standby", is_flag=True, help="Keep a copy of its disks in step, and stay.")
@budget_options
@click.option("--plan", is_flag=True, help="Only say what would be done, or why it cannot be.")
@click.option("--wait/--no-wait", default=True, help="Wait for the end (default), or do not.")
@command_with_app
def replicate(
    app: App,
    key: str,
    near: str,
    standby: bool,
    budget: operations_pb2.Budget,
    plan: bool,
    wait: bool,
) -> None:
    """Copies a VM, disks and all, to the vServer nearest to a place, and switches to the copy.

    The original runs until the copy is whole. Where there is shared storage, `vctl vm move --near`
    leaves the disks where they are.

    With --standby the VM stays where it is, and every write to its disks is made there, too, until
    `vctl op cancel` ends that, or `vctl vm promote` starts the copy. This does not wait.

    \b
    Examples:
      vctl vm replicate web-1 --near fra1 --plan
      vctl vm replicate web-1 --near 48.86,2.35
      vctl vm replicate web-1 --near fra1 --standby
    """
    request = signaling_pb2.ReplicateRequest(
        vm_id=find_vm_id(app.client, key), near=near, standby=standby, budget=budget, plan_only=plan
    )
    answer = app.client.call(app.client.signaling.Replicate, request)
    if plan:
        told(app, answer)
    else:
        finished(app, answer.operation, wait=wait and not standby)
