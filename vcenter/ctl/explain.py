"""vctl explain, completion, version: help that needs no vCenter."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class
from rich.table import Table

from common.errors import Reason
from vcenter.ctl.app import App, command_with_app
from vcenter.ctl.commands import Command
from vcenter.ctl.failure import Exit, Failure, exit_for_kind
from vcenter.ctl.output import cell, data, raw, show


def _complete(_: click.Context, __: click.Parameter, text: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in Reason.__members__ if name.startswith(text.upper())]


@click.command(cls=Command)
@click.argument("reason", required=False, shell_complete=_complete)
@command_with_app
def explain(app: App, reason: str | None) -> None:
    """Explains a reason that vsignal refuses with; without one, all of them.

    \b
    Examples:
      vctl explain CLAIM_HELD
      vctl explain -o json
    """
    if reason is None:
        _table(app, Reason)
        return
    name = reason.upper().replace("-", "_")
    if name not in Reason.__members__:
        near = difflib.get_close_matches(name, Reason.__members__, n=3)
        hint = f"Do you mean {' or '.join(near)}?" if near else "`vctl explain` lists all."
        raise Failure(Exit.NOT_FOUND, f"no reason is called {reason!r}", hint)
    _table(app, [Reason[name]])


def _table(app: App, reasons: Iterable[Reason]) -> None:
    if app.output == "name":
        for reason in reasons:
            raw(reason.name)
        return
    rows = [
        {
            "reason": reason.name,
            "status": reason.kind.value,
            "exit_code": int(exit_for_kind(reason.kind)),
            "explanation": reason.explanation,
        }
        for reason in reasons
    ]
    if data(app, rows):
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("REASON", "STATUS", "EXIT", "WHAT IT MEANS, WHAT TO DO"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(cell(str(value)) for value in row.values()))
    show(app, table)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Prints a script that completes vctl's commands and options.

    \b
    Examples:
      source <(vctl completion bash)
      vctl completion zsh > "${fpath[1]}/_vctl"
      vctl completion fish > ~/.config/fish/completions/vctl.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    raw(script(context.find_root().command, {}, "vctl", "_VCTL_COMPLETE").source())


@click.command(cls=Command)
@command_with_app
def version(app: App) -> None:
    """Prints the version of vctl.

    \b
    Example:
      vctl version -o json
    """
    try:
        number = importlib.metadata.version("vsignal")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        number = "0+unknown"
    if not data(app, {"version": number}):
        raw(number if app.output == "name" else f"vctl {number}")
