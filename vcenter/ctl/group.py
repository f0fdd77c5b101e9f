"""vctl group: a tenant's VMs that share a profile."""

from __future__ import annotations

from typing import TextIO

import click
import grpc

from common.pb.vsignal.v1 import inventory_pb2, signaling_pb2, types_pb2
from vcenter.ctl import profile_file
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.failure import status_of
from vcenter.ctl.how import How, move_options
from vcenter.ctl.keys import GroupName
from vcenter.ctl.move import carry_out
from vcenter.ctl.output import Column, Pairs, many, one
from vcenter.ctl.policy import get_group, read_profile, summary


@click.group(cls=Group)
def group() -> None:
    """Groups: a tenant's VMs that share a profile. Written TENANT/NAME."""


def _name(item: types_pb2.Group) -> str:
    return f"{item.tenant}/{item.name}"


COLUMNS: list[Column[types_pb2.Group]] = [
    Column("GROUP", _name),
    Column("PROFILE", lambda g: summary(g.profile) if g.HasField("profile") else "-"),
    Column("APART", lambda g: "yes" if g.anti_affinity else "-"),
    Column("REVISION", lambda g: str(g.revision), wide=True),
]


def _pairs(item: types_pb2.Group) -> Pairs:
    yield "Group", _name(item)
    yield "Revision", str(item.revision)
    if not item.HasField("profile"):
        yield "Profile", "-"
        return
    for number, text in enumerate(profile_file.render(item.profile).splitlines()):
        yield "" if number else "Profile", text


@group.command("list")
@click.option("--tenant", help="Only this tenant's.")
@command_with_app
def list_(app: App, tenant: str | None) -> None:
    """Lists the groups.

    \b
    Example:
      vctl group list --tenant acme
    """
    request = inventory_pb2.ListGroupsRequest(tenant=tenant or "")
    answer = app.client.call(app.client.inventory.ListGroups, request)
    many(app, answer.groups, COLUMNS, _name, "No group matches.")


@group.command()
@click.argument("name", metavar="TENANT/NAME", type=GroupName())
@command_with_app
def show(app: App, name: tuple[str, str]) -> None:
    """Shows a group with its profile.

    \b
    Example:
      vctl group show acme/web
    """
    found = get_group(app, *name)
    one(app, found, _pairs(found), _name(found))


@group.command("set")
@click.argument("name", metavar="TENANT/NAME", type=GroupName())
@click.option(
    "--profile",
    "file",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE|-",
    help="The profile, YAML or JSON; - reads stdin.",
)
@click.option("--no-profile", is_flag=True, help="Take the group's profile away.")
@click.option("--apart/--no-apart", default=None, help="Place no two members on one vServer.")
@command_with_app
def set_(
    app: App, name: tuple[str, str], file: TextIO | None, no_profile: bool, apart: bool | None
) -> None:
    """Declares a group. What is not said of one that exists stays as it is.

    \b
    Examples:
      vctl group set acme/web --profile web.yaml
      vctl group set acme/batch
      vctl group set acme/db --apart
    """  # fmt: skip
    if file and no_profile:
        raise click.UsageError("--profile and --no-profile exclude each other")
    tenant, group_name = name
    wanted = _known(app, tenant, group_name)
    if file:
        wanted.profile.CopyFrom(read_profile(file))
        wanted.profile.SetInParent()
    elif no_profile:
        wanted.ClearField("profile")
    if apart is not None:
        wanted.anti_affinity = apart
    stored = app.client.call(
        app.client.inventory.PutGroup, inventory_pb2.PutGroupRequest(group=wanted)
    )
    one(app, stored, _pairs(stored), _name(stored))


def _known(app: App, tenant: str, name: str) -> types_pb2.Group:
    """As it is, or a new one."""
    try:
        return get_group(app, tenant, name)
    except grpc.RpcError as error:
        if status_of(error) != "NOT_FOUND":
            raise
        return types_pb2.Group(tenant=tenant, name=name)


@group.command()
@click.argument("name", metavar="TENANT/NAME", type=GroupName())
@move_options
@command_with_app
def move(app: App, name: tuple[str, str], how: How) -> None:
    """Moves every member of a group, but for those that are where they should be.

    \b
    Examples:
      vctl group move acme/web --to host-7 --plan
      vctl group move acme/web --near fra1
    """
    subject = signaling_pb2.RelocateRequest.GroupSubject(tenant=name[0], group=name[1])
    carry_out(app, how.request(group=subject), how)


@group.command()
@click.argument("name", metavar="TENANT/NAME", type=GroupName())
@command_with_app
def delete(app: App, name: tuple[str, str]) -> None:
    """Deletes a group; refused while it has members.

    \b
    Example:
      vctl group delete acme/web
    """
    request = inventory_pb2.DeleteGroupRequest(tenant=name[0], name=name[1])
    answer = app.client.call(app.client.inventory.DeleteGroup, request)
    app.say(f"Deleted {'/'.join(name)} (revision {answer.revision}).")
