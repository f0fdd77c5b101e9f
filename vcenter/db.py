"""`vcenter db`: check, back up, restore and compact the ledger's database.

Exit codes: 0 done; 1 refused or damaged, with what to do; 2 wrong command line; 78 bad
configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from common.cli import load_or_exit
from common.clock import SystemClock
from common.lifecycle import FAILED
from vcenter.config import Config
from vcenter.ledger.records import Unreadable, decode
from vcenter.store.port import StoreUnusable, WriteFailed
from vcenter.store.sqlite import care

P = ParamSpec("P")


@click.group()
def db() -> None:
    """Look after the database that the configuration names."""


def _command(function: Callable[Concatenate[Path, Config, P], None]) -> Callable[P, None]:
    """Hands over the database's path; says in one line why something cannot be done."""

    @click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        default=Path("/etc/vsignal/vcenter.toml"),
        show_default=True,
        help="The vCenter's TOML file.",
    )
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        file = kwargs.pop("config_file")
        assert isinstance(file, Path)
        config = load_or_exit(file, Config)
        if config.database is None:
            text = "in memory: there is no database"
            if config.etcd is not None:
                text = "etcd: use etcdctl snapshot save and restore; see docs/etcd.md"
            click.echo(f"{file}: the store is {text}", err=True)
            sys.exit(FAILED)
        try:
            function(config.database.absolute(), config, *args, **kwargs)
        except (StoreUnusable, Unreadable, WriteFailed) as error:
            click.echo(str(error), err=True)
            sys.exit(FAILED)

    return wrapper


@db.command()
@_command
def check(path: Path, config: Config) -> None:
    """Read every page, index and record. Also while a vCenter serves; changes nothing."""
    found = care.check(path, decode)
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items()) or "empty"
    state = "in use by a vCenter" if found.serving else "not in use"
    click.echo(f"{path} is sound: revision {found.revision}; {kinds}; {state}")


@db.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@_command
def backup(path: Path, config: Config, target: Path) -> None:
    """Write one whole file to TARGET. Also while a vCenter serves."""
    care.backup(path, target.absolute())
    found = care.check(target.absolute(), decode)
    click.echo(f"{target} holds revision {found.revision}; it was checked")


@db.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_command
def restore(path: Path, config: Config, source: Path) -> None:
    """Put the backup SOURCE in the database's place; what was there is kept beside it.

    Stop the vCenter before. After its start the agents assert what they run; no VM is stopped.
    """
    care.check(source.absolute(), decode)
    kept, revision = care.restore(path, source.absolute(), SystemClock().now_ms())
    if kept is not None:
        click.echo(f"the old database is kept as {kept}")
    click.echo(f"{path} is restored from {source} and goes on at revision {revision}")


@db.command()
@_command
def compact(path: Path, config: Config) -> None:
    """Drop history older than `history_hours` and give its space back. Needs a stopped vCenter;
    a running one drops old history by itself, and uses the space again."""
    before_ms = SystemClock().now_ms() - int(config.history_hours * 3_600_000)
    before, after = care.compact(path, before_ms)
    click.echo(f"{path}: {before} bytes before, {after} after")
