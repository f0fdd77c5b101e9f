"""vctl vm thaw: a frozen identity is free again."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import inventory_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.keys import find_key


@click.command(cls=Command)
@click.argument("key")
@command_with_app
def thaw(app: App, key: str) -> None:
    """Lets a frozen identity change hands again. Look first who took turns at it. Of one that two
    domains hold, orders are taken again by this one, as long as it is the same two.

    KEY names what is frozen, as the alert does: a VM, or one address (VNI/MAC, VNI/IP).

    \b
    Examples:
      vctl alert list -o wide
      vctl vm thaw web-1
      vctl vm thaw 5001/10.1.0.5
    """
    request = inventory_pb2.ThawVmRequest(key=find_key(app.client, key))
    app.client.call(app.client.inventory.ThawVm, request)
    app.say(f"{key} is not frozen any more.")
