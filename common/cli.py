"""What every daemon's command line shares: where its configuration is, and how it is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.config import ConfigError, Section, load
from common.lifecycle import BAD_CONFIG

S = TypeVar("S", bound=Section)


def config_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--config FILE`, handed to the command as `path`."""
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        default=Path(default),
        show_default=True,
        help="TOML file; every key is checked before anything starts.",
    )


def load_or_exit(path: Path, model: type[S]) -> S:
    """The configuration, or every problem on standard error and exit code 78."""
    try:
        return load(path, model)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_CONFIG)
