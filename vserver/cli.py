"""`vserver`: run, check-config, doctor."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from common import log
from common.cli import config_option, load_or_exit
from common.clock import SystemClock
from common.errors import Refusal
from common.lifecycle import FAILED, Daemon, run
from vserver import doctor
from vserver.adaptors import VERSION, parts
from vserver.app import Agent
from vserver.config import AgentConfig
from vserver.state import StateError

_config = config_option("/etc/vsignal/vserver.toml")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION)
def main() -> None:
    """The vsignal agent of one hypervisor host."""


@main.command("run")
@_config
def run_command(path: Path) -> None:
    """Serve until SIGTERM, which changes no VM and closes no port."""
    config = load_or_exit(path, AgentConfig)
    log.configure(config.log)
    sys.exit(run(partial(_serve, config), expected=(Refusal, StateError, OSError)))


async def _serve(config: AgentConfig, daemon: Daemon) -> None:
    agent = Agent(config, parts(config, SystemClock()))
    await agent.run(daemon.stopping, daemon.ready)


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
