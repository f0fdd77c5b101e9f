"""Logs on standard error: JSON for machines, a console for people, one operation id throughout.

What is bound with `bound()` stands on every line that the same task writes, and those that it
starts, so that a whole move can be found by its `operation_id`.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from common.config import Section


class Format(StrEnum):
    AUTO = "auto"  # console if standard error is a terminal, else JSON
    JSON = "json"
    CONSOLE = "console"


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogSettings(Section):
    """The [log] table of every daemon's configuration."""

    level: Level = Level.INFO
    format: Format = Format.AUTO


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Once, where a daemon is composed. Libraries' own logging comes out in the same form."""
    out = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.name]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(settings.format, out)
    structlog.configure(
        processors=[*common, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _rendering(wanted: Format, out: TextIO) -> list[Processor]:
    if wanted is Format.CONSOLE or (wanted is Format.AUTO and out.isatty()):
        plain = structlog.dev.plain_traceback  # the other shows local variables: tokens, keys
        return [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def get(name: str) -> FilteringBoundLogger:
    """A logger for one module; its name stands on each line as `module`."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=name))


def bound(**fields: object) -> AbstractContextManager[None]:
    """Put these fields on every line written inside."""
    return cast(AbstractContextManager[None], structlog.contextvars.bound_contextvars(**fields))
