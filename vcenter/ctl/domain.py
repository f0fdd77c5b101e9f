"""vctl domain: the vCenters around this one (section 6)."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.tree import Tree

from common.pb.vsignal.v1 import federation_pb2 as pb
from vcenter.ctl import cert
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.output import Column, Pairs, many, one
from vcenter.ctl.words import moment, or_none, word


@click.group(cls=Group)
def domain() -> None:
    """Domains: data centers, each with a vCenter of its own."""


def _state(item: pb.Domain) -> str:
    text = word(item, "state")
    return f"{text} since {moment(item.stale_since)}" if item.HasField("stale_since") else text


def _tells(item: pb.Domain) -> str:
    """What it is told of this domain."""
    told = ", ".join(item.tenants) or (word(item, "tells") if item.tells else "")
    return f"{told} (by command)" if item.tells_by_command else or_none(told)


COLUMNS: list[Column[pb.Domain]] = [
    Column("DOMAIN", lambda d: d.name),
    Column("RELATION", lambda d: word(d, "relation")),
    Column("STATE", _state),
    Column("VMS", lambda d: str(d.vms)),
    Column("SERVERS", lambda d: str(d.servers)),
    Column("TELLS", _tells, wide=True),
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


@domain.command("show")
@click.argument("name", metavar="DOMAIN")
@command_with_app
def show(app: App, name: str) -> None:
    """Shows this domain or one that it knows, and what that one may learn of this one.

    \b
    Example:
      vctl domain show partner
    """
    own = _ask(app, tree=False)
    item = next((d for d in (own, *own.domains) if d.name == name), None)
    if item is None:
        text = f"no domain {name!r} is known here; `vctl domain list` shows all"
        raise Failure(Exit.NOT_FOUND, text)
    one(app, item, _pairs(item), item.name)


@domain.command("tell")
@click.argument("name", metavar="DOMAIN")
@click.argument("what", type=click.Choice(["everything", "tenants", "lookups", "as-configured"]))
@click.argument("tenants", metavar="[TENANT]...", nargs=-1)
@command_with_app
def tell(app: App, name: str, what: str, tenants: tuple[str, ...]) -> None:
    """Says what another domain may learn of this one: at once, and until something else is said.
    What it had been told before and may not hear any more, its vCenter forgets if it is ours.

    \b
    everything      all VMs and vServers
    tenants         the VMs of the tenants that are named, and the vServers
    lookups         answers to lookups, when it asks; nothing that it could follow
    as-configured   what vcenter.toml says

    \b
    Examples:
      vctl domain tell partner tenants acme blue
      vctl domain tell partner as-configured
    """
    if bool(tenants) != (what == "tenants"):
        raise click.UsageError("name tenants after `tenants`, and only there")
    request = pb.TellRequest(domain=name, tenants=tenants)
    if what != "as-configured":
        request.tells = pb.Telling.Value(f"TELLING_{what.upper()}")
    told = app.client.call(app.client.federation.Tell, request).domain
    one(app, told, _pairs(told), told.name)


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


def _pairs(item: pb.Domain) -> Pairs:
    yield "Domain", item.name
    yield "Relation", word(item, "relation")
    yield "Address", or_none(item.address)
    yield "State", _state(item)
    yield "Problem", or_none(item.problem)
    yield "VMs", str(item.vms)
    yield "vServers", str(item.servers)
    yield "Revision", str(item.revision)
    yield "Is told", _tells(item)


def _branch(of: pb.Domain, to: Tree) -> Tree:
    inner: Iterable[pb.Domain] = of.domains
    for item in inner:
        _branch(item, to.add(_line(item)))
    return to


def _line(item: pb.Domain) -> str:
    relation = "" if item.relation == pb.RELATION_SELF else f" ({word(item, 'relation')})"
    counts = f", {item.vms} VMs on {item.servers} vServers" if item.servers or item.vms else ""
    told = f", is told {_tells(item)}" if item.tells > pb.TELLING_EVERYTHING else ""
    problem = f": {item.problem}" if item.problem else ""
    return f"{item.name}{relation} {_state(item)}{counts}{told}{problem}"
