"""A pinger that measures the network's blackout: one echo every few milliseconds.

Runs as its own process (`python -m deploy.lab.pinger ADDRESS INTERVAL_MS FILE`), for
another thread's work would show up as a gap. Ended by SIGTERM, it writes one line per
echo, `sent_ns replied_ns` on the machine's monotonic clock, 0 where no reply came. SIGINT ends it,
too, but lets what is under way come: nothing more is sent, and it waits until all is answered.
It prints a line when it begins: before, SIGTERM would find nobody to write the file.
"""

import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")
_LATE_NS = 10_000_000_000
_MOST = 65536  # the sequence number's range: eleven minutes at 10 ms


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(identifier: int, number: int) -> bytes:
    """An ICMP echo request without a payload."""
    bare = _HEADER.pack(_ECHO_REQUEST, 0, 0, identifier, number)
    return _HEADER.pack(_ECHO_REQUEST, 0, checksum(bare), identifier, number)


def reply_number(packet: bytes, identifier: int) -> int | None:
    """The sequence number of an echo reply to us, else None."""
    start = (packet[0] & 0x0F) * 4
    fields: tuple[int, ...] = _HEADER.unpack_from(packet, start)
    kind, _, _, to, number = fields
    return number if (kind, to) == (_ECHO_REPLY, identifier) else None


def ping_until(stop: list[signal.Signals], address: str, interval_ns: int) -> list[tuple[int, int]]:
    """Send on a fixed schedule, and note when each reply comes, until told to stop."""
    identifier = os.getpid() & 0xFFFF
    sent: list[int] = []
    replied: dict[int, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as wire:
        due = time.monotonic_ns()
        while not stop and len(sent) < _MOST:
            sent.append(time.monotonic_ns())
            with suppress(OSError):  # no route or no neighbour is a gap, not an error
                wire.sendto(echo_request(identifier, len(sent) - 1), (address, 0))
            due += interval_ns
            _listen(wire, identifier, due, replied)
        latest = time.monotonic_ns() + _LATE_NS if signal.SIGINT in stop else 0
        while len(replied) < len(sent) and time.monotonic_ns() < latest:
            _listen(wire, identifier, time.monotonic_ns() + interval_ns, replied)
    return [(at, replied.get(number, 0)) for number, at in enumerate(sent)]


def _listen(wire: socket.socket, identifier: int, until: int, replied: dict[int, int]) -> None:
    while (left := until - time.monotonic_ns()) > 0:
        wire.settimeout(left / 1e9)
        try:
            packet = wire.recv(2048)
        except OSError:
            continue
        number = reply_number(packet, identifier)
        if number is not None:
            replied.setdefault(number, time.monotonic_ns())


def main(address: str, interval_ms: str, file: str) -> None:
    """Ping until told to end, then write the file: by renaming, so that it is whole or absent."""
    with suppress(PermissionError):
        os.nice(-15)  # a late wake-up would be counted as the network's
    stop: list[signal.Signals] = []
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda number, _: stop.append(signal.Signals(number)))
    print("pinging", flush=True)
    echoes = ping_until(stop, address, int(float(interval_ms) * 1e6))
    scratch = Path(file + ".part")
    scratch.write_text("".join(f"{sent} {replied}\n" for sent, replied in echoes))
    scratch.rename(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
