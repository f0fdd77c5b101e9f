"""One TCP connection that stays open while its other end is moved about."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import BinaryIO, Self

from deploy.lab import Probe, netns

_EVERY, _PATIENCE = 0.02, 60.0


class Conversation:
    """Says a line fifty times a second to a service that says it back, on one connection.

    `heard` lines came back, in order and whole; `problem` says what went wrong, or "".
    """

    def __init__(self, probe: Probe, address: str, port: int) -> None:
        self.heard = 0
        self.longest_gap_s = 0.0
        self.problem = ""
        self._wire = netns.call_in(probe.netns, socket.socket)
        self._wire.settimeout(_PATIENCE)
        self._wire.connect((address, port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(_PATIENCE + 5)
        self._wire.close()

    def _talk(self) -> None:
        with self._wire.makefile("rb") as back:
            try:
                while not self._over.wait(_EVERY):
                    self._say(back, f"line {self.heard}\n".encode())
            except OSError as error:
                self.problem = f"after {self.heard} lines: {error!r}"

    def _say(self, back: BinaryIO, line: bytes) -> None:
        began = time.monotonic()
        self._wire.sendall(line)
        answer = back.readline()
        if answer != line:
            raise ConnectionError(f"{line!r} came back as {answer!r}")
        self.heard += 1
        self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - began)
