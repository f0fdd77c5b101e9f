"""Following operations: their durable records, and the progress that lives in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from common import log
from common.clock import Clock
from common.model.operation import Operation, Phase, Progress
from vcenter.core.keys import Ledgered
from vcenter.core.view import View
from vcenter.ledger.feed import Committed, Feed

_log = log.get(__name__)


class Board:
    """One pulse per operation that somebody follows; whoever waits reads the table again."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._view: View = feed.table
        self._clock = clock
        self._progress: dict[str, Progress] = {}
        self._pulses: dict[str, dict[asyncio.Event, None]] = {}  # in the order of asking
        self._ended = False
        feed.listen(self._committed, Operation)

    def progress(self, operation_id: str) -> Progress | None:
        return self._progress.get(operation_id)

    def report(self, operation_id: str, progress: Progress) -> None:
        """From the source's agent; kept only while the operation is under way."""
        operation = self._view.operation(operation_id)
        if operation is not None and not operation.phase.final:
            self._progress[operation_id] = self._dated(operation, progress)
            self._pulse(operation_id)

    def _dated(self, operation: Operation, progress: Progress) -> Progress:
        """With when a standby was last known to lack nothing: what lies since then may be lost."""
        if not operation.apart:
            return progress
        if operation.phase is Phase.MIRRORING and not progress.bytes_remaining:
            return replace(progress, in_step_ms=self._clock.now_ms())
        before = self._progress.get(operation.operation_id)
        return replace(progress, in_step_ms=before.in_step_ms if before is not None else 0)

    async def follow(self, operation_id: str) -> AsyncIterator[Operation]:
        """The operation now and after every change, until it is done."""
        pulse = asyncio.Event()
        self._pulses.setdefault(operation_id, {})[pulse] = None
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
                _tell(change.before, change.after)
                if change.after.phase.final:
                    self._progress.pop(change.after.operation_id, None)
                self._pulse(change.after.operation_id)
                self._pulse(change.after.parent)  # its parts are what there is to follow

    def _pulse(self, operation_id: str) -> None:
        for pulse in self._pulses.get(operation_id, ()):
            pulse.set()

    def _forget(self, operation_id: str, pulse: asyncio.Event) -> None:
        waiting = self._pulses.get(operation_id, {})
        waiting.pop(pulse, None)
        if not waiting:
            self._pulses.pop(operation_id, None)


def _tell(before: Ledgered | None, after: Operation) -> None:
    """A line a phase, so that a whole move can be found in the log by its id."""
    if isinstance(before, Operation) and before.phase is after.phase:
        return
    _log.info(
        "move",
        operation_id=after.operation_id,
        vm_id=after.vm_id,
        phase=after.phase,
        source=after.source,
        destination=after.destination,
        epoch=after.epoch_after or after.epoch_before,
        why=after.failure.message if after.failure else None,
    )
