"""Whether a mirror goes on: a copy that hangs holds up its guest's writes, so it is given up."""

from __future__ import annotations

from dataclasses import dataclass

HANGS_AFTER = 10.0  # seconds without a byte, while there are some to write


@dataclass(slots=True)
class Lag:
    """What was written to a copy, and since when nothing has been added to that."""

    done: int = -1
    since: float = 0.0

    def hangs(self, done: int, missing: int, now: float) -> bool:
        """`done` and `missing` in bytes, at `now` in seconds of a clock that never goes back."""
        if done != self.done or not missing:
            self.done, self.since = done, now
        return now - self.since >= HANGS_AFTER
