"""How an operation goes on: a bar with bytes and rate, a line per phase, or nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from common.pb.vsignal.v1 import operations_pb2
from vcenter.ctl.movement import movement, progress
from vcenter.ctl.words import clean, size, word

_LINE_EVERY = 5.0  # seconds between lines of progress where there is no terminal


class Reporter(Protocol):
    """Shows how an operation goes on."""

    def __enter__(self) -> Reporter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip
    def show(self, op: operations_pb2.Operation) -> None: ...


class Lines:
    """A line when the phase changes, and now and then while memory is copied."""

    def __init__(self, console: Console) -> None:
        self._console, self._phase, self._at = console, -1, 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, op: operations_pb2.Operation) -> None:
        """Prints if there is something new to say."""
        now = time.monotonic()
        if op.phase == self._phase and now < self._at + _LINE_EVERY:
            return
        self._phase, self._at = op.phase, now
        text = "  ".join(part for part in (movement(op), progress(op)) if part)
        self._console.print(clean(text), soft_wrap=True)


class Silence:
    """Says nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, op: operations_pb2.Operation) -> None:
        """Nothing."""


class Bar:
    """One line that is redrawn."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, rate="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, op: operations_pb2.Operation) -> None:
        """Redraws."""
        known = op.HasField("progress") and op.progress.bytes_total > 0
        self._progress.update(
            self._task,
            description=word(op, "phase"),
            completed=op.progress.bytes_processed,
            total=op.progress.bytes_total if known else None,
            rate=f"{size(op.progress.bytes_per_second)}/s" if known else "",
        )


def reporter(console: Console, quiet: bool) -> Reporter:
    """The one that suits the console."""
    if quiet:
        return Silence()
    return Bar(console) if console.is_terminal else Lines(console)
