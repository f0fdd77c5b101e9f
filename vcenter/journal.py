"""Where the audit log is kept: JSON lines in files that are rotated by size, or memory.

One object a line, so that `jq`, `grep` and log shippers can read it beside `vctl audit`. The total
is bounded: with each new file the oldest goes.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

from common.model.value import value

FILES = 8
SCAN = 20_000  # entries that one page looks at, at most


@value
class Entry:
    """`number` grows by one; `revision` 0 where nothing changed; `outcome` "done" or the reason of
    the refusal; `count`: of how many alike this is the first."""

    at_ms: int
    who: str
    peer: str
    what: str
    subject: str
    revision: int
    outcome: str
    count: int = 1
    number: int = 0


_NAMES = tuple(field.name for field in fields(Entry))


class Journal(Protocol):
    blocks: bool  # appending waits for a disk

    def append(self, entries: Iterable[Entry]) -> None:
        """Numbers and keeps them; durable when it returns. Raises OSError."""
        ...

    def read(
        self, before: int, wanted: Callable[[Entry], bool], limit: int
    ) -> tuple[list[Entry], int]:
        """The newest wanted entries with a number under `before` (0: all), the newest first; and
        what to say as `before` for those that follow (0: there are none)."""
        ...


class MemoryJournal:
    """For a ledger in memory."""

    blocks = False

    def __init__(self, most: int = 10_000) -> None:
        self._kept: deque[Entry] = deque(maxlen=most)
        self._last = 0
        self._lock = threading.Lock()

    def append(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            for entry in entries:
                self._last += 1
                self._kept.append(replace(entry, number=self._last))

    def read(
        self, before: int, wanted: Callable[[Entry], bool], limit: int
    ) -> tuple[list[Entry], int]:
        with self._lock:
            kept = list(self._kept)
        return _page(reversed(kept), before, wanted, limit)


class FileJournal:
    """`path`, `path.1` …, the newest first; only the owner may read them."""

    blocks = True

    def __init__(self, path: Path, total_bytes: int) -> None:
        self._path = path
        self._most = max(total_bytes // FILES, 1)
        self._last: int | None = None  # the last number; None: not read yet
        self._lock = threading.Lock()

    def append(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            if self._last is None:
                self._last = next((e.number for e in self._entries()), 0)
            lines = []
            for entry in entries:
                self._last += 1
                said = {name: getattr(entry, name) for name in _NAMES}
                lines.append(json.dumps(said | {"number": self._last}) + "\n")
            self._write("".join(lines).encode())

    def _write(self, text: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        with os.fdopen(file, "ab") as out:
            out.write(text if self._ends_whole() else b"\n" + text)
            out.flush()
            os.fdatasync(out.fileno())
            size = out.tell()
        if size >= self._most:
            self._rotate()

    def _ends_whole(self) -> bool:
        """Whether the last line was written to its end; a crash may have torn it."""
        with self._path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def _rotate(self) -> None:
        files = self._files()
        for number in range(len(files) - 2, -1, -1):
            if files[number].exists():
                files[number].replace(files[number + 1])

    def _files(self) -> list[Path]:
        return [self._path, *(Path(f"{self._path}.{n}") for n in range(1, FILES))]

    def read(
        self, before: int, wanted: Callable[[Entry], bool], limit: int
    ) -> tuple[list[Entry], int]:
        with self._lock:
            return _page(self._entries(before), before, wanted, limit)

    def _entries(self, before: int = 0) -> Iterator[Entry]:
        """The newest first. Lines that are torn are passed over, files without any under `before`
        hardly looked at."""
        for path in self._files():
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            first = _read(lines[0]) if lines else None
            if before and first is not None and first.number >= before:
                continue
            for line in reversed(lines):
                entry = _read(line)
                if entry is not None:
                    yield entry


def _read(line: bytes) -> Entry | None:
    try:
        said: Any = json.loads(line)
        return Entry(**said)
    except (ValueError, TypeError):
        return None


def _page(
    entries: Iterator[Entry], before: int, wanted: Callable[[Entry], bool], limit: int
) -> tuple[list[Entry], int]:
    found: list[Entry] = []
    looked = 0
    for entry in entries:
        if before and entry.number >= before:
            continue
        looked += 1
        if wanted(entry):
            found.append(entry)
        if len(found) == limit or looked == SCAN:
            return found, entry.number if entry.number > 1 else 0
    return found, 0
