"""vctl tenant: who VMs and networks belong to."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import inventory_pb2, types_pb2
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.output import Column, Pairs, many, one


@click.group(cls=Group)
def tenant() -> None:
    """Tenants: who VMs, networks and groups belong to."""


COLUMNS: list[Column[types_pb2.Tenant]] = [
    Column("TENANT", lambda t: t.tenant_id),
    Column("REVISION", lambda t: str(t.revision), wide=True),
]


@tenant.command("list")
@command_with_app
def list_(app: App) -> None:
    """Lists the tenants.

    \b
    Example:
      vctl tenant list -o name
    """
    request = inventory_pb2.ListTenantsRequest()
    answer = app.client.call(app.client.inventory.ListTenants, request)
    many(app, answer.tenants, COLUMNS, lambda t: t.tenant_id, "No tenant is declared.")


@tenant.command("set")
@click.argument("tenant_id", metavar="TENANT")
@command_with_app
def set_(app: App, tenant_id: str) -> None:
    """Declares a tenant. Declaring it again changes nothing.

    \b
    Example:
      vctl tenant set acme
    """
    request = inventory_pb2.PutTenantRequest(tenant=types_pb2.Tenant(tenant_id=tenant_id))
    stored = app.client.call(app.client.inventory.PutTenant, request)
    one(app, stored, _pairs(stored), stored.tenant_id)


def _pairs(item: types_pb2.Tenant) -> Pairs:
    yield "Tenant", item.tenant_id
    yield "Revision", str(item.revision)


@tenant.command()
@click.argument("tenant_id", metavar="TENANT")
@command_with_app
def delete(app: App, tenant_id: str) -> None:
    """Deletes a tenant; refused while anything belongs to it.

    \b
    Example:
      vctl tenant delete acme
    """
    request = inventory_pb2.DeleteTenantRequest(tenant_id=tenant_id)
    answer = app.client.call(app.client.inventory.DeleteTenant, request)
    app.say(f"Deleted {tenant_id} (revision {answer.revision}).")
