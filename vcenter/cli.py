"""`vcenter`: run, check-config, db."""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click

from common import log
from common.config import ConfigError, load
from common.lifecycle import BAD_CONFIG, run
from vcenter.app import serve
from vcenter.config import Config
from vcenter.db import db
from vcenter.store.port import StoreUnusable
from vcenter.wire.server import CannotListen

_config = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/vsignal/vcenter.toml"),
    show_default=True,
    help="TOML file; every key is checked before anything starts.",
)


def _load(path: Path) -> Config:
    try:
        return load(path, Config)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_CONFIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("vsignal"))
def main() -> None:
    """The vsignal vCenter: keeps the VM identity to location ledger of one data center."""


main.add_command(db)


@main.command("run")
@_config
def run_command(path: Path) -> None:
    """Serve until SIGTERM, which drains: what was acknowledged is durable."""
    config = _load(path)
    log.configure(config.log)
    sys.exit(run(partial(serve, config), expected=(StoreUnusable, CannotListen)))


@main.command("check-config")
@_config
def check_config(path: Path) -> None:
    """Check the file and say what would be used; start nothing."""
    config = _load(path)
    click.echo(config.model_dump_json(indent=2))
