"""vctl domain: the vCenters around this one (section 6)."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.tree import Tree

from common.pb.vsignal.v1 import federation_pb2 as pb
from vcenter.ctl import cert
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.output import Column, many
from vcenter.ctl.words import moment, or_none, word


@click.group(cls=Group)
def domain() -> None:
    """Domains: data centers, each with a vCenter of its own."""


def _state(item: pb.Domain) -> str:
    text = word(item, "state")
    return f"{text} since {moment(item.stale_since)}" if item.HasField("stale_since") else text


COLUMNS: list[Column[pb.Domain]] = [
    Column("DOMAIN", lambda d: d.name),
    Column("RELATION", lambda d: word(d, "relation")),
    Column("STATE", _state),
    Column("VMS", lambda d: str(d.vms)),
    Column("SERVERS", lambda d: str(d.servers)),
    Column("ADDRESS", lambda d: or_none(d.address), wide=True),
    Column("REVISION", lambda d: str(d.revision), wide=True),
    Column("PROBLEM", lambda d: or_none(d.problem), wide=True),
]


def _ask(app: App, *, tree: bool) -> pb.Domain:
    request = pb.ListDomainsRequest(tree=tree)
    return app.client.call(app.client.federation.ListDomains, request).domain


@domain.command("list")
@command_with_app
def list_(app: App) -> None:
    """Lists this domain and those that it knows. A parent is asked, and keeps its own counts.

    \b
    Examples:
      vctl domain list
      vctl domain list -o wide
    """
    own = _ask(app, tree=False)
    many(app, [own, *own.domains], COLUMNS, lambda d: d.name, "")


@domain.command("tree")
@command_with_app
def tree(app: App) -> None:
    """Shows this domain, those that it knows, and those that they know in their turn.

    \b
    Examples:
      vctl domain tree
      vctl domain tree -o json
    """
    own = _ask(app, tree=True)
    if app.output in ("table", "wide"):
        app.out.print(_branch(own, Tree(_line(own))))
    else:
        many(app, [own], COLUMNS, lambda d: d.name, "")


@domain.command("invite")
@click.argument("name", metavar="DOMAIN")
@cert.VALID
@command_with_app
def invite(app: App, name: str, valid: float | None) -> None:
    """Makes a one-time token for another domain's vCenter: `vcenter join` there redeems it.

    \b
    Example:
      vctl domain invite center | ssh center vcenter join --relation child
    """
    cert.invite(app, f"domain/{name}", valid)


def _branch(of: pb.Domain, to: Tree) -> Tree:
    inner: Iterable[pb.Domain] = of.domains
    for one in inner:
        _branch(one, to.add(_line(one)))
    return to


def _line(item: pb.Domain) -> str:
    relation = "" if item.relation == pb.RELATION_SELF else f" ({word(item, 'relation')})"
    counts = f", {item.vms} VMs on {item.servers} vServers" if item.servers or item.vms else ""
    problem = f": {item.problem}" if item.problem else ""
    return f"{item.name}{relation} {_state(item)}{counts}{problem}"
