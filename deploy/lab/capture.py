"""Frames seen at an interface: the proof that what must not pass does not pass."""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from deploy.lab import netns

_ETH_P_ALL = 0x0003
_ETHERTYPE_IPV4, _ETHERTYPE_ARP = 0x0800, 0x0806
_ROOM = 16 << 20


@dataclass(frozen=True)
class Frame:
    """One frame, read as far as tests ask about it."""

    raw: bytes

    @property
    def target_mac(self) -> str:
        return self.raw[0:6].hex(":")

    @property
    def source_mac(self) -> str:
        return self.raw[6:12].hex(":")

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.raw[12:14], "big")

    @property
    def source_ip(self) -> str:
        """The IPv4 sender, in an ARP packet the one that it claims to be; else empty."""
        if self.ethertype == _ETHERTYPE_IPV4:
            return socket.inet_ntoa(self.raw[26:30])
        return socket.inet_ntoa(self.raw[28:32]) if self.ethertype == _ETHERTYPE_ARP else ""

    @property
    def is_arp(self) -> bool:
        return self.ethertype == _ETHERTYPE_ARP


class Capture:
    """Open to close, the kernel queues what passes; reading later loses nothing."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._wire = netns.call_in(namespace, lambda: _listen(interface))
        self._frames: list[Frame] = []

    @property
    def frames(self) -> list[Frame]:
        """All frames so far, in order; those sent from this interface as well."""
        try:
            while True:
                self._frames.append(Frame(self._wire.recv(65536)))
        except BlockingIOError:
            return list(self._frames)

    def count(self, *, source_mac: str | None = None, source_ip: str | None = None) -> int:
        """How many frames have this sender."""
        return sum(
            source_mac in (None, frame.source_mac) and source_ip in (None, frame.source_ip)
            for frame in self.frames
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wire.close()


def _listen(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    wire.bind((interface, 0))
    wire.setblocking(False)
    return wire
