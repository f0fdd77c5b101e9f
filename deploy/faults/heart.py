"""A guest's heartbeat, heard at the hosts' taps, before any network can lose it.

One `ping` inside the guest numbers what it sends and waits for nobody. A number is sent once:
whoever hears one twice, on one host or on two, has heard two guests made from one.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Self

from deploy.lab import Guest, Host, netns

_NOBODY, _NOBODYS_MAC = "10.1.0.254", "02:00:00:00:00:fe"
_EVERY_S = 0.2
_ETH_P_ALL, _PACKET_OUTGOING, _ICMP, _ECHO = 0x0003, 4, 1, 8
_SO_ATTACH_FILTER = 26
_TAPS = ("vnet", "vsp")  # libvirt's own names, and those that the agents give at a destination
_TYPE_AT, _NUMBER_AT = 14 + 20, 14 + 20 + 6


def begin(guest: Guest) -> None:
    """It goes where nobody is, and needs no answer; one process, which begins no others."""
    guest.console(f"arp -s {_NOBODY} {_NOBODYS_MAC}")
    guest.console(f"(ping -q -i {_EVERY_S} {_NOBODY} >/dev/null 2>&1 &)")


class Heart:
    """Listens on all hosts from its making to its end."""

    def __init__(self, guest: Guest, hosts: list[Host]) -> None:
        mac = bytes.fromhex(guest.spec.nics[0].mac.replace(":", ""))
        self._wires = {
            host.number: netns.call_in(host.netns, lambda: _listen(mac)) for host in hosts
        }
        self._heard: list[tuple[int, int]] = []

    def beats(self) -> list[tuple[int, int]]:
        """Every beat so far: the host, and the number; of each host in order."""
        for number, wire in self._wires.items():
            while (beat := _next(wire)) is not None:
                self._heard.append((number, beat))
        return list(self._heard)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for wire in self._wires.values():
            wire.close()


def twice(beats: list[tuple[int, int]]) -> list[int]:
    """The numbers that were heard more than once."""
    counted = Counter(number for _, number in beats)
    return sorted(number for number, times in counted.items() if times > 1)


def _next(wire: socket.socket) -> int | None:
    """The number of the next beat that came out of a guest."""
    while True:
        try:
            frame, (interface, _, kind, *_) = wire.recvfrom(2048)
        except BlockingIOError:
            return None
        if kind == _PACKET_OUTGOING or not interface.startswith(_TAPS):
            continue
        if len(frame) > _NUMBER_AT + 1 and frame[23] == _ICMP and frame[_TYPE_AT] == _ECHO:
            return int.from_bytes(frame[_NUMBER_AT : _NUMBER_AT + 2], "big")


def _listen(mac: bytes) -> socket.socket:
    """On every interface there is or will be, for what this MAC sends: a filter in the kernel, lest
    the copy of a guest's memory fill the queue."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    first, last = struct.unpack("!IH", mac)
    code = [
        (0x20, 0, 0, 6),  # the word at 6
        (0x15, 0, 3, first),
        (0x28, 0, 0, 10),  # the half word at 10
        (0x15, 0, 1, last),
        (0x06, 0, 0, 0x40000),  # all of it
        (0x06, 0, 0, 0),  # nothing
    ]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    program = struct.pack("HL", len(code), ctypes.addressof(steps))
    wire.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    wire.setblocking(False)
    return wire
