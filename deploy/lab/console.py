"""A guest's serial console: commands in, answers out, past every network policy."""

import re
import secrets
import shlex
import socket
import time
from pathlib import Path

_INTERRUPT = b"\x03\n"
_PATIENCE = 1.0


class Console:
    """The serial port's socket. Only one may hold it at a time, so each command connects."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wait_ready(self, timeout: float) -> None:
        """Return once the guest answers."""
        deadline = time.monotonic() + timeout
        with self._connect(deadline) as wire:
            _greet(wire, deadline)

    def run(self, command: str, timeout: float) -> str:
        """Return what the command printed; RuntimeError when it failed.

        The end is marked by a word that no echo of the input contains, for a console
        repeats what is typed until the guest has told it not to.
        """
        word = secrets.token_hex(4)
        line = f"echo '<'{word}; eval {shlex.quote(command)}; echo $?'>'{word}\n"
        deadline = time.monotonic() + timeout
        with self._connect(deadline) as wire:
            _greet(wire, deadline)
            wire.sendall(line.encode())
            return _answer(_read_until(wire, f">{word}", deadline), word, command)

    def _connect(self, deadline: float) -> socket.socket:
        """Wait for the port too: it appears when the hypervisor has started."""
        while True:
            wire = socket.socket(socket.AF_UNIX)
            try:
                wire.connect(str(self._path))
            except (FileNotFoundError, ConnectionError):
                wire.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return wire


def _greet(wire: socket.socket, deadline: float) -> None:
    """Ask, harmlessly and again, until an answer comes.

    What is typed to a booting guest is lost, an earlier command may hang, and a serial
    port may sleep over its input after a move until more comes.
    """
    patience = _PATIENCE
    while True:
        word = secrets.token_hex(4)
        wire.sendall(f"\necho '<'{word}\n".encode())
        try:
            _read_until(wire, f"<{word}", min(deadline, time.monotonic() + patience))
        except TimeoutError:
            patience *= 2  # on a busy machine the answer may only be late
            if time.monotonic() >= deadline:
                raise
        else:
            return


def _read_until(wire: socket.socket, end: str, deadline: float) -> str:
    text = b""
    while end.encode() not in text:
        wire.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            piece = wire.recv(4096)
        except TimeoutError:
            wire.settimeout(_PATIENCE)
            wire.sendall(_INTERRUPT)  # leave no command behind for whoever comes next
            raise TimeoutError(f"the console gave no answer, only {text!r}") from None
        if not piece:
            raise ConnectionError("the guest's console closed")
        text += piece
    return text.decode(errors="replace")


def _answer(text: str, word: str, command: str) -> str:
    found = re.search(rf"<{word}\r?\n(.*?)(\d+)>{word}", text, re.S)
    if found is None:
        raise ConnectionError(f"the console's answer to {command!r} is garbled: {text!r}")
    output, code = found[1].replace("\r\n", "\n"), int(found[2])
    if code:
        raise RuntimeError(f"in the guest, {command!r}: exit {code}: {output.strip()}")
    return output.strip()
