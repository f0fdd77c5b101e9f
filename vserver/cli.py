"""`vserver`: run, check-config, doctor, guest."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import click
import grpc
from rich.console import Console
from rich.table import Table

from common import log
from common.certificates import BadCertificate
from common.cli import config_option, load_or_exit
from common.clock import SystemClock
from common.enrol import join
from common.errors import Refusal
from common.jointoken import BadToken, parse_token
from common.lifecycle import FAILED, Daemon, run
from common.model.caller import Caller, Role
from common.status import refusal_from_call
from common.tls import TlsError
from vserver import doctor
from vserver.adaptors import VERSION, parts
from vserver.app import Agent
from vserver.config import AgentConfig
from vserver.guest_cli import guest
from vserver.privileges import missing
from vserver.state import StateError

_config = config_option("/etc/vsignal/vserver.toml")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION)
def main() -> None:
    """The vsignal agent of one hypervisor host."""


main.add_command(guest)


@main.command("run")
@_config
def run_command(path: Path) -> None:
    """Serve until SIGTERM, which changes no VM and closes no port."""
    config = load_or_exit(path, AgentConfig)
    log.configure(config.log)
    sys.exit(run(partial(_serve, config), expected=(Refusal, StateError, TlsError, OSError)))


async def _serve(config: AgentConfig, daemon: Daemon) -> None:
    for privilege in missing(config):
        log.get(__name__).warning("not privileged", lacks=privilege.name, purpose=privilege.purpose)
    agent = Agent(config, parts(config, SystemClock()))
    await agent.run(daemon.stopping, daemon.ready)


@main.command("join")
@_config
@click.argument("token", required=False)
def join_command(path: Path, token: str | None) -> None:
    """Redeem a join token of `vctl server invite`: get a certificate, believe its CA.

    TOKEN, or standard input where it is not given, so that nobody sees it in `ps`. The private key
    is made here and never leaves this host.
    """
    config = load_or_exit(path, AgentConfig)
    if config.tls is None:
        sys.exit("vserver: the [tls] table of the configuration says where the certificate goes")
    try:
        read = parse_token(token or sys.stdin.readline())
        if read.caller != Caller(Role.VSERVER, config.server_id):
            sys.exit(f"vserver: the token is for {read.identity}; this is {config.server_id}")
        join(read, config.tls)
    except grpc.RpcError as error:
        refusal = refusal_from_call(error)
        sys.exit(f"vserver: {refusal.message if refusal else f'{read.join}: {error.details()}'}")
    except (BadToken, BadCertificate, OSError) as error:
        sys.exit(f"vserver: {error}")
    click.echo(f"{config.server_id} joined {read.domain}; its certificate is {config.tls.identity}")


@main.command("check-config")
@_config
def check_config(path: Path) -> None:
    """Check the file and say what would be used; start nothing."""
    click.echo(load_or_exit(path, AgentConfig).model_dump_json(indent=2))


@main.command("doctor")
@_config
@click.option("-o", "form", type=click.Choice(["table", "json"]), default="table", help="Output.")
def doctor_command(path: Path, form: str) -> None:
    """Say what this host can do and what not. Exits with 1 if it is not fit for VMs."""
    findings = asyncio.run(doctor.examine(load_or_exit(path, AgentConfig), SystemClock()))
    if form == "json":
        click.echo(json.dumps(doctor.as_data(findings), indent=2))
    else:
        Console().print(_table(findings))
    sys.exit(0 if doctor.is_fit(findings) else FAILED)


def _table(findings: list[doctor.Finding]) -> Table:
    table = Table("", "part", "what", "finding", box=None, header_style="bold")
    for finding in findings:
        mark = "[green]ok[/]" if finding.works else "[red]NO[/]" if finding.vital else "no"
        table.add_row(mark, finding.part, finding.name, finding.text)
    return table
