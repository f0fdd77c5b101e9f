"""`vserver guest`: the VMs of a host whose hypervisor is `qemu`. It works without the agent too."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from common.cli import config_option, load_or_exit
from common.clock import SystemClock
from common.config import ConfigError, load
from common.errors import Refusal
from common.lifecycle import FAILED
from vserver.config import AgentConfig, HypervisorKind
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.hand import Hand, Seen
from vserver.hypervisor.qemu.home import Homes

T = TypeVar("T")

_config = config_option("/etc/vsignal/vserver.toml")
_key = click.argument("guest", metavar="NAME|UUID")
_form = click.option(
    "-o", "form", type=click.Choice(["table", "json"]), default="table", help="Output."
)


@click.group()
def guest() -> None:
    """Make and run the VMs of a host with `hypervisor = "qemu"`; see docs/qemu.md."""


@guest.command()
@click.argument("file", type=click.Path(path_type=Path))
@_config
def define(file: Path, path: Path) -> None:
    """Take in a guest from a TOML file; one that is there changes at its next start."""

    async def work(hand: Hand) -> Definition:
        definition = load(file, Definition)
        await asyncio.to_thread(hand.define, definition)
        return definition

    definition = _done(path, work)
    click.echo(f"{definition.uuid} {definition.name}")


@guest.command()
@_key
@_config
def undefine(guest: str, path: Path) -> None:
    """Forget a guest that is off. Its disks stay."""
    _done(path, lambda hand: hand.undefine(guest))


@guest.command()
@_key
@_config
def start(guest: str, path: Path) -> None:
    """Start it; its port stays closed until the agent has put its policy in force."""
    _done(path, lambda hand: hand.start(guest))


@guest.command()
@_key
@_config
@click.option("--within", type=click.FloatRange(1, 3600), default=30.0, show_default=True,
              help="Seconds that it has to shut down.")  # fmt: skip
@click.option("--now", is_flag=True, help="Pull the plug.")
def stop(guest: str, path: Path, within: float, now: bool) -> None:
    """Press its power button and wait until it is off."""
    _done(path, lambda hand: hand.stop(guest, within=0 if now else within))


@guest.command()
@_key
@_config
def suspend(guest: str, path: Path) -> None:
    """Hold it still, in memory."""
    _done(path, lambda hand: hand.suspend(guest))


@guest.command()
@_key
@_config
def resume(guest: str, path: Path) -> None:
    """Let a suspended guest run on."""
    _done(path, lambda hand: hand.resume(guest))


@guest.command("set")
@_key
@_config
@click.option("--vcpus", type=int, help="Virtual CPUs.")
@click.option("--memory-mib", type=int, help="Memory in MiB.")
def set_command(guest: str, path: Path, vcpus: int | None, memory_mib: int | None) -> None:
    """Change its size. Says so when that needs it to be stopped and started."""
    if _done(path, lambda hand: hand.change(guest, vcpus, memory_mib)):
        click.echo("changed; it runs with what it had until it is stopped and started")


@guest.command()
@_key
@click.argument("tag")
@_config
def snapshot(guest: str, tag: str, path: Path) -> None:
    """Keep memory and disks under a tag, inside its qcow2 disks."""
    _done(path, lambda hand: hand.snapshot(guest, tag))


@guest.command("list")
@_config
@_form
def list_command(path: Path, form: str) -> None:
    """Every guest of this host."""
    guests = _done(path, lambda hand: hand.list())
    if form == "json":
        click.echo(json.dumps([_data(seen) for seen in guests], indent=2))
        return
    table = Table("name", "state", "cpus", "MiB", "tenant", "uuid", "", box=None)
    for seen in guests:
        of = seen.definition
        sizes = (str(of.vcpus), str(of.memory_mib))
        table.add_row(of.name, seen.state, *sizes, of.tenant or "-", of.uuid, seen.note)
    Console().print(table)


@guest.command()
@_key
@_config
def show(guest: str, path: Path) -> None:
    """One guest, as JSON."""
    click.echo(json.dumps(_data(_done(path, lambda hand: hand.show(guest))), indent=2))


def _done(path: Path, work: Callable[[Hand], Coroutine[Any, Any, T]]) -> T:
    """The result, or the reason on standard error and exit code 1."""
    config = load_or_exit(path, AgentConfig)
    if config.hypervisor is not HypervisorKind.QEMU:
        _fail(f'{path}: hypervisor is "{config.hypervisor.value}"; these are guests of "qemu"')
    hand = Hand(Homes(config.guests_dir), SystemClock())
    try:
        return asyncio.run(work(hand))
    except (Refusal, ConfigError, OSError, ValidationError) as error:
        _fail(str(error) or "QEMU did not answer in time")


def _fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(FAILED)


def _data(seen: Seen) -> dict[str, Any]:
    definition = seen.definition.model_dump(mode="json")
    return {"state": seen.state, "note": seen.note, "definition": definition}
