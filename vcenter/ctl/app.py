"""What every command shares: the options of all commands, consoles, the connection."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO, TypeVar

import click
import grpc
from rich.console import Console

from common.model.identity import parse_name
from common.tls import Bundle, TlsSettings
from vcenter.ctl.client import Client
from vcenter.ctl.config import default_path, read, settings
from vcenter.ctl.failure import failure

P = ParamSpec("P")
R = TypeVar("R")
DEFAULT_SERVER = "localhost:7400"
FORMATS = ("table", "wide", "json", "yaml", "name")
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNLIMITED = 100_000  # columns, where nobody looks: lines are never folded for a program


class Seconds(click.ParamType[float]):
    """`30`, `200ms`, `30s`, `5m`, `1h`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smh]?)", str(value))
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration: write 30, 200ms, 30s, 5m or 1h", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class SharedOption(click.Option):
    """An option of every command; the one nearest to the command's end wins."""

    def __init__(self, *names: str, **settings: Any) -> None:
        super().__init__(list(names), expose_value=False, callback=_remember, **settings)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None:
        context.meta[f"vctl.{parameter.name}"] = value  # shared by all nested contexts


def shared_options() -> list[click.Parameter]:
    """A new set of them, for one command."""
    return [
        SharedOption("--server", metavar="ADDRESS", help="The vCenter: host:port or unix:///path"
                     "  [VCTL_SERVER; default: the configuration's]"),
        SharedOption("--config", metavar="FILE", help="Which vCenter, and your certificate"
                     "  [VCTL_CONFIG; default ~/.config/vsignal/vctl.toml]"),
        SharedOption("--as", "identity", metavar="IDENTITY",
                     help="Call in plain text as operator/NAME[/view|operate|admin] or tenant/ID,"
                     " on the vCenter's machine  [VCTL_IDENTITY]"),
        SharedOption("--domain", metavar="NAME", help="Have it carried out in this domain, by way"
                     " of the vCenter  [VCTL_DOMAIN; default: where the VM or vServer is]"),
        SharedOption("-o", "--output", type=click.Choice(FORMATS), metavar="|".join(FORMATS),
                     help="Format on stdout  [default table]"),
        SharedOption("--timeout", type=Seconds(), metavar="DURATION",
                     help="How long to wait: 30, 30s, 5m, 1h"
                     "  [default: 30s for an answer, no end for an operation]"),
        SharedOption("--no-color", is_flag=True, default=None, help="No colours  [NO_COLOR]"),
    ]  # fmt: skip


@dataclass(frozen=True)
class App:
    """One run of vctl."""

    given: Mapping[str, Any]  # the shared options that were given
    output: str
    timeout: float | None
    color: bool

    @cached_property
    def connection(self) -> tuple[str, Bundle | str]:
        """Where to, and as whom: by certificate, unless plain text was asked for."""
        server = self.given.get("server") or os.environ.get("VCTL_SERVER")
        identity = self.given.get("identity") or os.environ.get("VCTL_IDENTITY")
        if not identity:
            config, bundle = read(self.config_path)
            return server or config.server, bundle
        if not re.fullmatch(r"[!-~]+", identity):
            raise click.UsageError("an identity is printable ASCII without spaces")
        return server or DEFAULT_SERVER, identity

    @property
    def settings(self) -> TlsSettings:
        """The files of the certificate with which vctl calls."""
        return settings(self.config_path)

    @property
    def config_path(self) -> Path:
        return Path(self.given.get("config") or default_path())

    @property
    def domain(self) -> str:
        """Empty: the one that owns what a command names."""
        said = self.given.get("domain") or os.environ.get("VCTL_DOMAIN") or ""
        try:
            return parse_name(said) if said else ""
        except ValueError as error:
            raise click.UsageError(f"--domain: {error}") from None

    @property
    def server(self) -> str:
        return self.connection[0]

    @cached_property
    def client(self) -> Client:
        """Connects at the first call."""
        try:
            return Client(*self.connection, self.timeout, self.domain)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    @cached_property
    def out(self) -> Console:
        """Data."""
        return _console(sys.stdout, self.color)

    @cached_property
    def err(self) -> Console:
        """Messages and progress."""
        return _console(sys.stderr, self.color)

    def say(self, message: str) -> None:
        """One message for a person."""
        self.err.print(message, soft_wrap=True)

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if "client" in self.__dict__:
            self.client.close()


def _console(stream: TextIO, color: bool) -> Console:
    seen = stream.isatty()
    return Console(
        file=stream,
        color_system="auto" if seen and color else None,
        width=None if seen else _UNLIMITED,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _current(context: click.Context) -> App:
    given = {key[5:]: value for key, value in context.meta.items() if key.startswith("vctl.")}
    return App(
        given=given,
        output=given.get("output", "table"),
        timeout=given.get("timeout"),
        color=not given.get("no_color") and not os.environ.get("NO_COLOR"),
    )


@contextmanager
def refusals_told(app: App) -> Iterator[None]:
    """A failed call becomes a message and an exit code, never a traceback."""
    try:
        yield
    except grpc.RpcError as error:
        raise failure(error, app.server) from error


def command_with_app(function: Callable[Concatenate[App, P], R]) -> Callable[P, R]:
    """Hands the App to a command."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context()
        app = _current(context)
        context.call_on_close(app.close)
        with refusals_told(app):
            return function(app, *args, **kwargs)

    return wrapper
