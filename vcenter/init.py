"""`vcenter init`: a domain in one step."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from common.clock import SystemClock
from common.lifecycle import FAILED
from common.model.identity import parse_name
from vcenter.ca.domain import DomainExists, Plan
from vcenter.ca.domain import init as make


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return parse_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _after(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or not port.isdecimal():
        raise click.UsageError("say with --join where join tokens are redeemed: HOST:PORT")
    return f"{host}:{int(port) + 1}"


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--domain", required=True, callback=_name, help="The name of this data center.")
@click.option(
    "--listen", "addresses", multiple=True, required=True, help="HOST:PORT or unix:/PATH; again."
)
@click.option("--join", help="HOST:PORT where join tokens are redeemed  [the port after that]")
@click.option("--operator", default="admin", show_default=True, callback=_name,
              help="The name of the first operator, who may do everything.")  # fmt: skip
def init(
    folder: Path, domain: str, addresses: tuple[str, ...], join: str | None, operator: str
) -> None:
    """Make a domain in FOLDER: its CA, the vCenter's certificate, an operator's, configuration.

    \b
    Example:
      vcenter init /var/lib/vsignal --domain fra1 --listen 192.0.2.1:7400
    """
    plan = Plan(domain, folder.absolute(), addresses, operator, join or _after(addresses[0]))
    try:
        make(plan, SystemClock().now_ms())
    except (DomainExists, OSError) as error:
        click.echo(f"nothing made: {error}", err=True)
        sys.exit(FAILED)
    click.echo(f"vcenter run --config {plan.folder}/vcenter.toml")
    click.echo(
        f"vctl --config {plan.vctl} server list   # or move that folder to ~/.config/vsignal"
    )
    click.echo(f"Keep {plan.folder}/ca.key safe: who has it can be anybody in {domain}.")
