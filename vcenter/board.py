"""Following operations: their durable records, and the progress that lives in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from common.model.operation import Operation, Progress
from vcenter.core.view import View
from vcenter.feed import Committed, Feed


class Board:
    """One pulse per operation that somebody follows; whoever waits reads the table again."""

    def __init__(self, feed: Feed) -> None:
        self._view: View = feed.table
        self._progress: dict[str, Progress] = {}
        self._pulses: dict[str, set[asyncio.Event]] = {}
        self._ended = False
        feed.listen(self._committed)

    def progress(self, operation_id: str) -> Progress | None:
        return self._progress.get(operation_id)

    def report(self, operation_id: str, progress: Progress) -> None:
        """From the source's agent; kept only while the operation is under way."""
        operation = self._view.operation(operation_id)
        if operation is not None and not operation.phase.final:
            self._progress[operation_id] = progress
            self._pulse(operation_id)

    async def follow(self, operation_id: str) -> AsyncIterator[Operation]:
        """The operation now and after every change, until it is done."""
        pulse = asyncio.Event()
        self._pulses.setdefault(operation_id, set()).add(pulse)
        try:
            while True:
                pulse.clear()
                operation = self._view.must_operation(operation_id)
                yield operation
                if operation.phase.final or self._ended:
                    return
                await pulse.wait()
        finally:
            self._forget(operation_id, pulse)

    async def wait(self, operation_id: str, timeout: float) -> Operation:
        """The operation when it is done, or as it is when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                async for operation in self.follow(operation_id):
                    if operation.phase.final:
                        return operation
        return self._view.must_operation(operation_id)

    def end(self) -> None:
        """Whoever follows hears the last state once more, and that is all."""
        self._ended = True
        for operation_id in list(self._pulses):
            self._pulse(operation_id)

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, Operation):
                if change.after.phase.final:
                    self._progress.pop(change.after.operation_id, None)
                self._pulse(change.after.operation_id)

    def _pulse(self, operation_id: str) -> None:
        for pulse in self._pulses.get(operation_id, ()):
            pulse.set()

    def _forget(self, operation_id: str, pulse: asyncio.Event) -> None:
        waiting = self._pulses.get(operation_id, set())
        waiting.discard(pulse)
        if not waiting:
            self._pulses.pop(operation_id, None)
