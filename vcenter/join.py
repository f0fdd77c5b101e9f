"""`vcenter join`: become the neighbour of a domain that has invited us."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import grpc

from common import enrol
from common.certificates import BadCertificate
from common.cli import config_option, load_or_exit
from common.config import ConfigError, parse
from common.jointoken import BadToken, JoinToken, parse_token
from common.lifecycle import FAILED
from common.model.caller import Caller, Role
from common.secrets import write_private, write_public
from common.status import refusal_from_call
from common.tls import TlsSettings
from vcenter.config import Config


class CannotJoin(Exception):
    """Nothing was redeemed: the token may still be used."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What is to be written, once the token is redeemed."""

    path: Path
    text: str  # the whole configuration
    tls: TlsSettings

    def write(self) -> None:
        """As readable as it was. Raises OSError."""
        loose = stat.S_IMODE(self.path.stat().st_mode) & 0o077
        (write_public if loose else write_private)(self.path, self.text.encode())


def plan(
    path: Path, config: Config, token: JoinToken, relation: str, vouches: str | None, address: str
) -> Neighbourhood:
    """Raises `CannotJoin`, ConfigError, OSError."""
    if token.caller != Caller(Role.DOMAIN, config.domain):
        raise CannotJoin(f"the token is for {token.identity}; this is domain/{config.domain}")
    folder = path.absolute().parent / "domains" / token.domain
    tls = TlsSettings(identity=folder / "identity.pem", ca=folder / "ca.pem")
    table = {"name": token.domain, "relation": relation, "address": address or token.server}
    table |= {"vouches": vouches} if vouches else {}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    files = f"identity = {json.dumps(str(tls.identity))}, ca = {json.dumps(str(tls.ca))}"
    written = "\n".join(["", "[[domains]]", *lines, f"tls = {{ {files} }}", ""])
    text = path.read_text().rstrip("\n") + "\n" + written
    parse(text, Config, path)
    return Neighbourhood(path, text, tls)


@click.command("join")
@config_option("/etc/vsignal/vcenter.toml")
@click.option(
    "--relation",
    type=click.Choice(["child", "peer", "parent"]),
    required=True,
    help="What that domain is to this one.",
)
@click.option(
    "--vouches",
    type=click.Choice(["nobody", "tenant", "view", "operate", "admin"]),
    help="On whose behalf it may call us  [a parent: admin; others: nobody]",
)
@click.option("--address", default="", help="Where its vCenter is, if not where the token says.")
@click.argument("token", required=False)
def join(path: Path, relation: str, vouches: str | None, address: str, token: str | None) -> None:
    """Redeem a token of another domain's `vctl domain invite`: get a certificate there, believe its
    CA, add the domain to the configuration. TOKEN, or standard input where it is not given.

    \b
    Example:
      vcenter join --relation child < token
    """
    config = load_or_exit(path, Config)
    try:
        read = parse_token(token or sys.stdin.readline())
        planned = plan(path, config, read, relation, vouches, address)
        enrol.join(read, planned.tls)
        planned.write()
    except grpc.RpcError as error:
        refusal = refusal_from_call(error)
        _give_up(refusal.message if refusal else f"{read.join}: {error.details()}")
    except (CannotJoin, BadToken, BadCertificate, ConfigError, OSError) as error:
        _give_up(str(error))
    click.echo(f"{config.domain} joined {read.domain} as its neighbour: {path}")
    click.echo("Restart the vCenter to take it up.")


def _give_up(text: str) -> None:
    click.echo(f"vcenter: {text}", err=True)
    sys.exit(FAILED)
