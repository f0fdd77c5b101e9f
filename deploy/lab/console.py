"""A guest's serial console: commands in, answers out, past every network policy."""

import re
import secrets
import shlex
import socket
import time
from pathlib import Path

_INTERRUPT = b"\x03\n"


class Console:
    """The serial port's socket. Only one may hold it at a time, so each command connects."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, command: str, timeout: float) -> str:
        """Return what the command printed; RuntimeError when it failed.

        The end is marked by a word that no echo of the input contains, for a console
        repeats what is typed until the guest has told it not to.
        """
        word = secrets.token_hex(4)
        deadline = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(timeout)
            wire.connect(str(self._path))
            line = f"echo '<'{word}; eval {shlex.quote(command)}; echo $?'>'{word}\n"
            wire.sendall(line.encode())
            text = self._read_until(wire, f">{word}", deadline)
        return _answer(text, word, command)

    def wait_ready(self, timeout: float) -> None:
        """Ask until the guest answers; what was typed before it booted is lost."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.run("true", 1.0)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    @staticmethod
    def _read_until(wire: socket.socket, end: str, deadline: float) -> str:
        text = b""
        while end.encode() not in text:
            wire.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = wire.recv(4096)
            except TimeoutError:
                wire.sendall(_INTERRUPT)  # leave no command behind for whoever comes next
                raise TimeoutError(f"the console gave no answer, only {text!r}") from None
            if not piece:
                raise ConnectionError("the guest's console closed")
            text += piece
        return text.decode(errors="replace")


def _answer(text: str, word: str, command: str) -> str:
    found = re.search(rf"<{word}\r?\n(.*?)(\d+)>{word}", text, re.S)
    if found is None:
        raise RuntimeError(f"the console's answer to {command!r} is garbled: {text!r}")
    output, code = found[1].replace("\r\n", "\n"), int(found[2])
    if code:
        raise RuntimeError(f"in the guest, {command!r}: exit {code}: {output.strip()}")
    return output.strip()
