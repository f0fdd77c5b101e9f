"""Eyes that stay open while a test does something: one moment of openness is enough to be seen."""

import errno
import select
import socket
import threading
import time
from types import TracebackType
from typing import Self

from deploy.lab import netns
from deploy.lab.probe import Probe

_EVERY = 0.02
_PATIENCE = 0.9  # before the kernel knocks a second time by itself
_HEARD = (0, errno.ECONNREFUSED)  # a refusal by the guest has passed both ways as well


class Knocker:
    """Knocks at a TCP port fifty times a second, for as long as the block lasts.

    `answers` says when somebody answered, in seconds from the beginning.
    """

    def __init__(self, probe: Probe, address: str, port: int) -> None:
        self._netns = probe.netns
        self._goal = (address, port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=netns.call_in, args=(self._netns, self._knock))
        self._waiting: list[tuple[float, socket.socket]] = []
        self.knocks = 0
        self.answers: list[float] = []

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _knock(self) -> None:
        """Runs inside the probe's namespace; the last knocks are heard out."""
        while not self._stop.wait(_EVERY) or self._waiting:
            if not self._stop.is_set():
                wire = socket.socket()
                wire.setblocking(False)
                wire.connect_ex(self._goal)
                self._waiting.append((time.monotonic() + _PATIENCE, wire))
                self.knocks += 1
            self._listen()

    def _listen(self) -> None:
        _, ready, _ = select.select([], [wire for _, wire in self._waiting], [], 0)
        left, now = [], time.monotonic()
        for until, wire in self._waiting:
            if wire in ready and wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _HEARD:
                self.answers.append(round(now - self._began, 2))
            elif wire not in ready and now < until:
                left.append((until, wire))
                continue
            wire.close()
        self._waiting = left
