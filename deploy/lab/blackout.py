"""What a run of echoes says: how long the network was away."""

import signal
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Blackout:
    """The longest time between two replies, with its ends on the monotonic clock."""

    longest_gap_ms: float
    gap_starts_ns: int
    gap_ends_ns: int
    sent: int
    lost: int

    @classmethod
    def of(cls, echoes: list[tuple[int, int]]) -> "Blackout":
        """From (sent, replied) pairs. What is lost at the end counts up to the last echo."""
        replies = sorted(replied for _, replied in echoes if replied)
        if not replies:
            raise ValueError(f"none of {len(echoes)} echoes was ever answered")
        ends = [*replies, max(replies[-1], echoes[-1][0])]
        start, end = max(pairwise(ends), key=lambda pair: pair[1] - pair[0])
        lost = len(echoes) - len(replies)
        return cls((end - start) / 1e6, start, end, len(echoes), lost)


class PingRun:
    """A pinger at work; `stop` ends it and says what it saw."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self._process = process
        self._file = file

    def begun(self) -> "PingRun":
        """Itself, when the first echo is about to be sent."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"the pinger ended with {self._process.wait(10)}")
        return self

    def stop(self) -> Blackout:
        """At once: what has not been answered yet counts as lost."""
        return self._end(signal.SIGTERM)

    def finish(self) -> Blackout:
        """As soon as all is answered; what is not after ten seconds is lost."""
        return self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> Blackout:
        with self._process:  # waits, and closes the pipe
            self._process.send_signal(how)
        pairs = [line.split() for line in self._file.read_text().splitlines()]
        self._file.unlink()
        return Blackout.of([(int(sent), int(replied)) for sent, replied in pairs])
