"""vctl vm assign: the tenant, group and networks of a VM."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import directory_pb2, inventory_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.keys import AttachmentText, find_vm_id
from vcenter.ctl.output import one
from vcenter.ctl.places import vm_pairs


@click.command(cls=Command)
@click.argument("key")
@click.option("--tenant", help="The tenant it belongs to.")
@click.option("--group", help="The group, within the tenant, whose profile it takes.")
@click.option(
    "--interface",
    "interfaces",
    type=AttachmentText(),
    multiple=True,
    metavar="MAC=NETWORK[:VNI][@IP,IP]",
    help="Its network; once for each interface.",
)
@command_with_app
def assign(
    app: App,
    key: str,
    tenant: str | None,
    group: str | None,
    interfaces: tuple[inventory_pb2.AssignVmRequest.Attachment, ...],
) -> None:
    """Gives a VM its tenant, group and networks. What is not named stays as it is.

    \b
    Examples:
      vctl vm assign web-1 --tenant acme --group web \\
          --interface 52:54:00:00:00:01=blue@10.1.0.5
      vctl vm assign web-1 --interface 52:54:00:00:00:01=blue:5001@10.1.0.5,fd00::5
    """  # fmt: skip
    if not (tenant or group or interfaces):
        raise click.UsageError("say what to assign: --tenant, --group, --interface")
    request = inventory_pb2.AssignVmRequest(
        vm_id=find_vm_id(app.client, key),
        tenant=tenant or "",
        group=group or "",
        interfaces=interfaces,
    )
    record = app.client.call(app.client.inventory.AssignVm, request)
    pairs = vm_pairs(directory_pb2.GetVmResponse(record=record))
    one(app, record, pairs, record.vm.vm_id)
