"""vctl vm: where the VMs are, and what they may do."""

from __future__ import annotations

import click

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl import watching
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.assign import assign
from vcenter.ctl.commands import Group
from vcenter.ctl.history import history
from vcenter.ctl.keys import find_key
from vcenter.ctl.move import move
from vcenter.ctl.output import Column, many, one
from vcenter.ctl.places import addresses, closed_because, owner, state, vm_pairs
from vcenter.ctl.profile import show_profile
from vcenter.ctl.replicate import replicate
from vcenter.ctl.settle import forget, promote, recover
from vcenter.ctl.thaw import thaw
from vcenter.ctl.where import where
from vcenter.ctl.words import moment, or_none, short, word

Record = types_pb2.VmRecord


@click.group(cls=Group)
def vm() -> None:
    """Virtual machines: list, find, move, assign.

    KEY is a UUID, VNI/MAC, VNI/IP, or a VM's name where it is unique.
    """


for _command in (where, history, move, replicate, assign, thaw, promote, recover, forget):
    vm.add_command(_command)
COLUMNS: list[Column[Record]] = [
    Column("VM", lambda r: r.vm.vm_id),
    Column("NAME", lambda r: or_none(r.vm.name)),
    Column("TENANT", lambda r: owner(r.vm)),
    Column("SERVER", lambda r: or_none(r.location.server_id)),
    Column("STATE", state),
    Column("PORTS", lambda r: or_none(closed_because(r))),
    Column("EPOCH", lambda r: str(r.location.epoch), wide=True),
    Column("ADDRESSES", lambda r: addresses(r.vm), wide=True),
    Column("POLICY", lambda r: short(r.profile_hash), wide=True),
    Column("CHANGED", lambda r: moment(r.changed_at), wide=True),
    Column("REVISION", lambda r: str(r.revision), wide=True),
]


@vm.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--group", help="Only members of groups with this name.")
@click.option("--on", "server_id", metavar="SERVER", help="Only those on this vServer.")
@click.option("--network", help="Only those with an interface in this virtual network.")
@click.option("--unassigned", is_flag=True, help="Only those without a tenant.")
@command_with_app
def list_(
    app: App,
    tenant: str | None,
    group: str | None,
    server_id: str | None,
    network: str | None,
    unassigned: bool,
) -> None:
    """Lists VMs, and says why the port of one is closed.

    \b
    Examples:
      vctl vm list --unassigned
      vctl vm list --tenant acme --on host-7 -o wide
      vctl vm list -o name | wc -l
    """
    request = directory_pb2.ListVmsRequest(
        tenant=tenant or "",
        group=group or "",
        server_id=server_id or "",
        network=network or "",
        unassigned_only=unassigned,
    )
    many(app, app.client.vms(request), COLUMNS, lambda r: r.vm.vm_id, "No VM matches.")


COUNTS: list[Column[directory_pb2.StateCount]] = [
    Column("STATE", lambda c: word(c, "state")),
    Column("VMS", lambda c: str(c.vms)),
]


@vm.command("count")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--group", help="Only members of groups with this name.")
@click.option("--on", "server_id", metavar="SERVER", help="Only those on this vServer.")
@click.option("--network", help="Only those with an interface in this virtual network.")
@command_with_app
def count_(
    app: App, tenant: str | None, group: str | None, server_id: str | None, network: str | None
) -> None:
    """Says how many VMs are in each state, without reading them.

    \b
    Examples:
      vctl vm count
      vctl vm count --tenant acme --on host-7
    """
    request = directory_pb2.CountVmsRequest(
        tenant=tenant or "",
        group=group or "",
        server_id=server_id or "",
        network=network or "",
    )
    answer = app.client.call(app.client.directory.CountVms, request)
    many(app, answer.states, COUNTS, lambda c: word(c, "state"), "")


@vm.command()
@click.argument("key")
@command_with_app
def show(app: App, key: str) -> None:
    """Shows one VM: place, interfaces, policy and whether it is in force.

    \b
    Examples:
      vctl vm show web-1
      vctl vm show 5001/10.1.0.5 -o json
    """
    request = directory_pb2.GetVmRequest(key=find_key(app.client, key))
    answer = app.client.call(app.client.directory.GetVm, request)
    one(app, answer, vm_pairs(answer), answer.record.vm.vm_id)


@vm.command()
@click.argument("key", required=False)
@click.option("--tenant", help="Only this tenant's.")
@click.option("--on", "server_id", metavar="SERVER", help="Only those on this vServer.")
@click.option("--network", help="Only those in this virtual network.")
@command_with_app
def watch(
    app: App, key: str | None, tenant: str | None, server_id: str | None, network: str | None
) -> None:
    """Shows VMs and then every change of them, until Ctrl-C. One scope at most.

    \b
    Examples:
      vctl vm watch web-1
      vctl vm watch --network blue -o json
    """
    request = watching.scope(tenant=tenant, server_id=server_id, network=network, vm=key, app=app)
    watching.run(app, request, changes={"vm", "vm_gone"}, snapshot=True)


@vm.command()
@click.argument("key")
@click.option("--own", is_flag=True, help="Only what is the VM's own, without its group's.")
@command_with_app
def profile(app: App, key: str, own: bool) -> None:
    """Shows a VM's effective profile, as `vctl profile show vm/KEY` does.

    \b
    Examples:
      vctl vm profile web-1
      vctl vm profile web-1 --own
    """
    show_profile(app, f"vm/{key}", own)
