"""`vcenter`: init, join, run, check-config, db."""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
import uvloop

from common import log
from common.cli import config_option, load_or_exit
from common.lifecycle import run
from common.tls import TlsError
from vcenter.app import serve
from vcenter.ca.authority import AuthorityError
from vcenter.config import Config
from vcenter.db import db
from vcenter.init import init
from vcenter.join import join
from vcenter.store.port import StoreUnusable
from vcenter.wire.server import CannotListen

_config = config_option("/etc/vsignal/vcenter.toml")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("vsignal"))
def main() -> None:
    """The vsignal vCenter: keeps the VM identity to location ledger of one data center."""


main.add_command(db)
main.add_command(init)
main.add_command(join)


@main.command("run")
@_config
def run_command(path: Path) -> None:
    """Serve until SIGTERM, which drains: what was acknowledged is durable."""
    config = load_or_exit(path, Config)
    log.configure(config.log)
    expected = (StoreUnusable, CannotListen, TlsError, AuthorityError)
    sys.exit(run(partial(serve, config), expected, on=uvloop.run))


@main.command("check-config")
@_config
def check_config(path: Path) -> None:
    """Check the file and say what would be used; start nothing."""
    config = load_or_exit(path, Config)
    click.echo(config.model_dump_json(indent=2))
