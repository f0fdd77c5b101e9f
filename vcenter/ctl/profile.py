"""vctl profile: network policy of a VM or a group, in the format of profile files."""

from __future__ import annotations

from typing import TextIO

import click

from common.pb.vsignal.v1 import directory_pb2, types_pb2
from vcenter.ctl import profile_file
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Group
from vcenter.ctl.keys import find_key, find_vm_id, parse_group
from vcenter.ctl.output import as_json, raw
from vcenter.ctl.policy import get_group, read_profile, set_group_profile, set_vm_profile


@click.group(cls=Group)
def profile() -> None:
    """Network policy: VLAN, ACL, rates, anti-spoofing, of a VM or of a group.

    WHOSE is vm/KEY or group/TENANT/NAME.
    """


def parse_whose(text: str) -> tuple[str, str]:
    """`vm/KEY` or `group/TENANT/NAME`."""
    kind, _, rest = text.partition("/")
    if kind not in ("vm", "group") or not rest:
        raise click.UsageError(f"write vm/KEY or group/TENANT/NAME, not {text!r}")
    return kind, rest


def _group_name(text: str) -> tuple[str, str]:
    try:
        return parse_group(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _fetch(app: App, whose: str, own: bool) -> tuple[types_pb2.Profile, str]:
    """The profile, and a note about what it is."""
    kind, rest = parse_whose(whose)
    if kind == "group":
        return get_group(app, *_group_name(rest)).profile, ""
    request = directory_pb2.GetVmRequest(key=find_key(app.client, rest))
    answer = app.client.call(app.client.directory.GetVm, request)
    if own:
        return answer.record.vm.profile, ""
    if not answer.record.vm.group:
        return answer.effective_profile, ""
    return (
        answer.effective_profile,
        f"effective: the VM's own over group {answer.record.vm.group}'s",
    )


def show_profile(app: App, whose: str, own: bool) -> None:
    """Prints it as a file that `profile set` takes."""
    found, note = _fetch(app, whose, own)
    match app.output:
        case "name":
            raw(whose)
        case "json":
            raw(as_json(profile_file.to_data(found)))
        case _:
            if note:
                raw(f"# {note}")
            raw(profile_file.render(found).rstrip("\n"))


@profile.command()
@click.argument("whose", metavar="WHOSE")
@click.option("--own", is_flag=True, help="Of a VM: only its own, without its group's.")
@command_with_app
def show(app: App, whose: str, own: bool) -> None:
    """Shows a profile as a file that can be edited and set; of a VM, the effective one.

    \b
    Examples:
      vctl profile show vm/web-1
      vctl profile show vm/web-1 --own > web-1.yaml
      vctl profile show group/acme/web -o json
    """
    show_profile(app, whose, own)


@profile.command("set")
@click.argument("whose", metavar="WHOSE")
@click.argument("file", metavar="FILE|-", type=click.File("r", encoding="utf-8"), required=False)
@click.option("--none", is_flag=True, help="Take the profile away.")
@command_with_app
def set_(app: App, whose: str, file: TextIO | None, none: bool) -> None:
    """Replaces a profile by the one in FILE, YAML or JSON.

    What a VM's own profile does not mention comes from its group's.

    \b
    Examples:
      vctl profile set vm/web-1 web-1.yaml
      vctl profile show group/acme/web | sed s/10M/20M/ | vctl profile set group/acme/web -
      vctl profile set vm/web-1 --none
    """
    if none == bool(file):
        raise click.UsageError("give a FILE (- is stdin), or --none")
    kind, rest = parse_whose(whose)
    wanted = read_profile(file) if file else None
    if kind == "group":
        revision = set_group_profile(app, *_group_name(rest), wanted)
    else:
        revision = set_vm_profile(app, find_vm_id(app.client, rest), wanted)
    app.say(f"{'Set' if wanted is not None else 'Removed'} (revision {revision}).")
