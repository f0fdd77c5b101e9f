"""vctl network: virtual networks and their VNIs."""

from __future__ import annotations

import click

from common.model.identity import MAX_VNI
from common.pb.vsignal.v1 import inventory_pb2, types_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.output import Column, many, one
from vcenter.ctl.words import listed


@click.group(cls=Group)
def network() -> None:
    """Virtual networks: each belongs to one tenant and has one VNI or more."""


COLUMNS: list[Column[types_pb2.VirtualNetwork]] = [
    Column("NETWORK", lambda n: n.network_id),
    Column("TENANT", lambda n: n.tenant),
    Column("VNIS", lambda n: listed(n.vnis)),
    Column("REVISION", lambda n: str(n.revision), wide=True),
]


@network.command("list")
@click.option("--tenant", help="Only this tenant's.")
@command_with_app
def list_(app: App, tenant: str | None) -> None:
    """Lists the virtual networks.

    \b
    Example:
      vctl network list --tenant acme
    """
    request = inventory_pb2.ListNetworksRequest(tenant=tenant or "")
    answer = app.client.call(app.client.inventory.ListNetworks, request)
    many(app, answer.networks, COLUMNS, lambda n: n.network_id, "No virtual network matches.")


@network.command("set")
@click.argument("network_id", metavar="NETWORK")
@click.option("--tenant", required=True, help="The tenant it belongs to.")
@click.option(
    "--vni",
    "vnis",
    type=click.IntRange(1, MAX_VNI),
    multiple=True,
    required=True,
    help="A VNI of it; once for each, all of them every time.",
)
@command_with_app
def set_(app: App, network_id: str, tenant: str, vnis: tuple[int, ...]) -> None:
    """Declares a virtual network, or replaces its declaration.

    \b
    Examples:
      vctl network set blue --tenant acme --vni 5001
      vctl network set blue --tenant acme --vni 5001 --vni 5002
    """  # fmt: skip
    wanted = types_pb2.VirtualNetwork(network_id=network_id, tenant=tenant, vnis=vnis)
    request = inventory_pb2.PutNetworkRequest(network=wanted)
    stored = app.client.call(app.client.inventory.PutNetwork, request)
    pairs = ((column.title.capitalize(), column.value(stored)) for column in COLUMNS)
    one(app, stored, pairs, stored.network_id)


@network.command()
@click.argument("network_id", metavar="NETWORK")
@command_with_app
def delete(app: App, network_id: str) -> None:
    """Deletes a virtual network; refused while an interface is in it.

    \b
    Example:
      vctl network delete blue
    """
    request = inventory_pb2.DeleteNetworkRequest(network_id=network_id)
    answer = app.client.call(app.client.inventory.DeleteNetwork, request)
    app.say(f"Deleted {network_id} (revision {answer.revision}).")
