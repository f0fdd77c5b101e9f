"""vctl vm promote, recover, forget: what becomes of a VM that was lost, or whose vServer is off."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import operations_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.keys import find_vm_id
from vcenter.ctl.move import finished
from vcenter.ctl.output import one


@click.command(cls=Command)
@click.argument("key")
@click.option("--wait/--no-wait", default=True, help="Wait for the end (default), or do not.")
@command_with_app
def promote(app: App, key: str, wait: bool) -> None:
    """Starts the standby of a VM, whose vServer is fenced, or says that it is off there.

    What the guest had written when its copy was last in step is there; `vctl op show` says when
    that was.

    \b
    Example:
      vctl vm promote web-1
    """
    request = operations_pb2.PromoteRequest(vm_id=find_vm_id(app.client, key))
    finished(app, app.client.call(app.client.operations.Promote, request), wait=wait)


@click.command(cls=Command)
@click.argument("key")
@click.option("--on", "server_id", metavar="SERVER", required=True, help="Its owner from now on.")
@command_with_app
def recover(app: App, key: str, server_id: str) -> None:
    """Gives a lost VM, or one of a fenced vServer, to another vServer, at a new epoch.

    Refused unless every vServer that could run it is fenced, or says that it does not. Starting it
    there (`virsh start`) is up to you; the ledger then knows it, and its ports open. A guest that
    its move's source still holds, with its memory, runs on there by this.

    \b
    Example:
      vctl vm recover web-1 --on host-2
    """
    _settle(app, key, server_id)


@click.command(cls=Command)
@click.argument("key")
@command_with_app
def forget(app: App, key: str) -> None:
    """Removes a lost VM, or one of a fenced vServer, from the ledger. Its addresses become free.

    \b
    Example:
      vctl vm forget 0b9e7c62-93f0-4d2c-8a55-3f2b6c1d7e10
    """
    _settle(app, key, "")


def _settle(app: App, key: str, server_id: str) -> None:
    vm_id = find_vm_id(app.client, key)
    request = operations_pb2.SettleRequest(vm_id=vm_id, server_id=server_id)
    done = app.client.call(app.client.operations.Settle, request)
    pairs = [
        ("VM", vm_id),
        ("vServer", done.server_id or "none: it is forgotten"),
        ("Epoch", str(done.epoch)),
        ("Revision", str(done.revision)),
    ]
    one(app, done, pairs, vm_id)
