"""vctl server: the hypervisor hosts."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import directory_pb2, enrolment_pb2, inventory_pb2, operations_pb2
from vcenter.ctl import cert, watching
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.failure import Exit, Failure
from vcenter.ctl.follow import finish, follow
from vcenter.ctl.how import How, move_options
from vcenter.ctl.move import carry_out
from vcenter.ctl.movement import receipt
from vcenter.ctl.output import Column, Pairs, many, one
from vcenter.ctl.words import enum_word, listed, moment, or_none, share, word

ServerLoad = directory_pb2.ServerLoad
_LOADS = {
    "overloaded": directory_pb2.LOAD_OVERLOADED,
    "unused": directory_pb2.LOAD_UNUSED,
    "normal": directory_pb2.LOAD_NORMAL,
}


@click.group(cls=Group)
def server() -> None:
    """The hypervisor hosts (vServers): load, capacity, what they can enforce."""


def _load(item: ServerLoad) -> str:
    return word(item, "load") + (", least used" if item.least_used else "")


def _liveness(item: ServerLoad) -> str:
    marks = ("fenced", item.server.HasField("fenced_at")), ("cordoned", item.server.cordoned)
    return listed([word(item.server, "liveness"), *(mark for mark, is_so in marks if is_so)])


def _cpu(item: ServerLoad) -> str:
    return f"{item.status.cpu_percent:.0f}%" if item.HasField("status") else "-"


def _memory(item: ServerLoad) -> str:
    return share(item.server.committed.memory_mib, item.server.capacity.memory_mib)


def _capabilities(item: ServerLoad) -> str:
    enum = item.server.DESCRIPTOR.fields_by_name["capabilities"].enum_type
    return listed(enum_word(enum, number) for number in item.server.capabilities)


COLUMNS: list[Column[ServerLoad]] = [
    Column("SERVER", lambda s: s.server.server_id),
    Column("SITE", lambda s: or_none(s.server.site)),
    Column("LIVENESS", _liveness),
    Column("LOAD", _load),
    Column("VMS", lambda s: str(s.server.vms)),
    Column("MEMORY COMMITTED", _memory),
    Column("CPU", _cpu),
    Column("NAME", lambda s: or_none(s.server.name), wide=True),
    Column("MANAGEMENT", lambda s: or_none(s.server.management_address), wide=True),
    Column("VTEP", lambda s: or_none(s.server.vtep_address), wide=True),
    Column("HYPERVISOR", lambda s: or_none(s.server.hypervisor), wide=True),
    Column("CPU MODEL", lambda s: or_none(s.server.cpu_model), wide=True),
    Column("ENFORCES", _capabilities, wide=True),
    Column("LAST SEEN", lambda s: moment(s.server.last_seen), wide=True),
]


def _name(item: ServerLoad) -> str:
    return item.server.server_id


@server.command("list")
@click.option("--load", type=click.Choice(list(_LOADS)), help="Only those with this load.")
@click.option("--least-used", is_flag=True, help="Only the one with the smallest share in use.")
@command_with_app
def list_(app: App, load: str | None, least_used: bool) -> None:
    """Lists the vServers.

    \b
    Examples:
      vctl server list --load overloaded
      vctl server list --least-used -o name
    """
    request = directory_pb2.ListServersRequest(least_used_only=least_used)
    if load:
        request.load = _LOADS[load]
    many(app, app.client.servers(request), COLUMNS, _name, "No vServer matches.")


def _pairs(item: ServerLoad) -> Pairs:
    yield from ((column.title.capitalize(), column.value(item)) for column in COLUMNS)
    host = item.server
    yield "vCPUs committed", f"{host.committed.vcpus}/{host.capacity.vcpus}"
    if item.HasField("status"):
        free, total = item.status.memory_free_mib, item.status.memory_total_mib
        yield "Memory in use", share(total - free, total)
    if host.HasField("coordinates"):
        yield "Coordinates", f"{host.coordinates.latitude:g},{host.coordinates.longitude:g}"
    if host.HasField("fenced_at"):
        yield "Fenced", moment(host.fenced_at)
    yield "Migration", or_none(host.migration_uri)
    yield "MAC address", or_none(host.mac_address)
    yield "Revision", str(host.revision)


@server.command()
@click.argument("server_id", metavar="SERVER")
@command_with_app
def show(app: App, server_id: str) -> None:
    """Shows everything about one vServer.

    \b
    Examples:
      vctl server show host-7
      vctl server show host-7 -o json
    """
    for item in app.client.servers(directory_pb2.ListServersRequest()):
        if item.server.server_id == server_id:
            one(app, item, _pairs(item), server_id)
            return
    raise Failure(Exit.NOT_FOUND, f"no vServer has the id {server_id!r}")


@server.command()
@click.argument("server_id", metavar="SERVER")
@cert.VALID
@command_with_app
def invite(app: App, server_id: str, valid: float | None) -> None:
    """Makes a one-time join token for a host: `vserver join` there redeems it.

    \b
    Example:
      vctl server invite host-7 | ssh host-7 vserver join
    """
    cert.invite(app, f"vserver/{server_id}", valid)


@server.command()
@click.argument("server_id", metavar="SERVER")
@command_with_app
def revoke(app: App, server_id: str) -> None:
    """Revokes a host's certificates and invitations; its stream ends within 5 s.

    \b
    Example:
      vctl server revoke host-7
    """
    cert.revoke(app, enrolment_pb2.RevokeRequest(identity=f"vserver/{server_id}"))


@server.command()
@click.argument("server_id", metavar="[SERVER]", required=False)
@command_with_app
def watch(app: App, server_id: str | None) -> None:
    """Shows the vServers and then every change of them, until Ctrl-C.

    \b
    Examples:
      vctl server watch
      vctl server watch host-7 -o json | jq .server.liveness
    """
    request = watching.scope(app, None, server_id, None, None)
    watching.run(app, request, changes={"server"}, snapshot=True)


@server.command()
@click.argument("server_id", metavar="SERVER")
@move_options
@command_with_app
def drain(app: App, server_id: str, how: How) -> None:
    """Moves every VM off a vServer, and lets none in (as `cordon` does) until it is uncordoned.

    All are moved, or it is refused with every reason against every VM. Each is an operation of its
    own, a part of the drain: `vctl op list --parent OPERATION`.

    \b
    Examples:
      vctl server drain host-7 --plan
      vctl server drain host-7
      vctl server drain host-7 --near fra1 --priority -10 --no-wait
    """
    carry_out(app, how.request(server_id=server_id), how)


@server.command()
@click.argument("server_id", metavar="SERVER")
@command_with_app
def cordon(app: App, server_id: str) -> None:
    """Lets no VM be moved to a vServer; those that are there stay.

    \b
    Example:
      vctl server cordon host-7
    """
    _cordon(app, server_id, cordoned=True)


@server.command()
@click.argument("server_id", metavar="SERVER")
@command_with_app
def uncordon(app: App, server_id: str) -> None:
    """Lets VMs be moved to a vServer again.

    \b
    Example:
      vctl server uncordon host-7
    """
    _cordon(app, server_id, cordoned=False)


def _cordon(app: App, server_id: str, *, cordoned: bool) -> None:
    request = inventory_pb2.CordonServerRequest(server_id=server_id, cordoned=cordoned)
    stored = app.client.call(app.client.inventory.CordonServer, request)
    item = ServerLoad(server=stored)
    one(app, stored, [("Server", server_id), ("Liveness", _liveness(item))], server_id)


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--word", metavar="TEXT", default="", help="How you know that it is off; logged.")
@click.option("--wait/--no-wait", default=True, help="Wait for the device (default), or do not.")
@command_with_app
def fence(app: App, server_id: str, word: str, wait: bool) -> None:
    """Makes sure that a silent vServer runs nothing: by its fence device, or by your word.

    Only then may its VMs be settled (`vctl vm recover`, `vctl vm forget`). Keep the host off until
    they are, and see to it that it starts none of them by itself when it comes back.

    \b
    Examples:
      vctl server fence host-7
      vctl server fence host-7 --word "pulled both plugs"
    """
    request = operations_pb2.FenceRequest(server_id=server_id, word=word)
    begun = app.client.call(app.client.operations.Fence, request)
    if not wait:
        one(app, begun, receipt(begun), begun.operation_id)
        return
    finish(app, follow(app, begun.operation_id, known=True))
