"""Asking a guest elsewhere whether it is there, into a VNI's tunnel, past its bridge.

Two raw sockets on the tunnel's device: one sends, the other hears what leaves and what arrives,
both with the kernel's own times, so that how late this process gets to look does not matter. A
filter in the kernel keeps the network's other traffic from the second one.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyroute2 import netns as namespaces

from common.errors import Reason, Refusal
from vserver.network.linux.exchange import Exchange, Pieces, exchange
from vserver.network.linux.tunnel import device_name
from vserver.network.port import Ear, Neighbour, Sign
from vserver.network.question import question

_EVERY_PROTOCOL = 3  # linux/if_ether.h: ETH_P_ALL
_ATTACH_FILTER, _TIMESTAMPNS = 26, 35  # asm-generic/socket.h: SO_*
_LOAD = {4: 0x20, 2: 0x28, 1: 0x30}  # linux/filter.h, by the number of bytes
_IS, _RETURN = 0x15, 0x06
_LONGEST = 128  # bytes of a frame; answers are shorter
_TIME = struct.Struct("@ll")
_AT_ONCE = 1000  # frames; more have to wait for the next look
_NOT_NOW = (errno.ENOBUFS, errno.EAGAIN)


@contextmanager
def listening(to: Neighbour, netns: str | None) -> Iterator[Ear]:
    device = device_name(to.vni)
    try:
        with _socket(netns) as sending, _socket(netns) as hearing:
            sending.bind((device, 0))
            about = exchange(question(to))
            _prepare(hearing, device, about.alike)
            yield _Ear(about, sending, hearing)
    except PermissionError as error:
        raise Refusal(Reason.NETWORK_FAILED, "the agent has no CAP_NET_RAW") from error


def _socket(netns: str | None) -> socket.socket:
    """Deaf until it is bound to a protocol."""
    if netns is None:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    else:
        made = namespaces.create_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setblocking(False)
    return made


def _prepare(hearing: socket.socket, device: str, alike: Pieces) -> None:
    lines = _only(alike)
    held = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    described = struct.pack("HP", len(lines), ctypes.addressof(held))
    hearing.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
    hearing.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    hearing.bind((device, _EVERY_PROTOCOL))


def _only(pieces: Pieces) -> list[tuple[int, int, int, int]]:
    """A filter that takes what has all of these: code, jump if true, jump if false, operand."""
    words = [word for at, piece in pieces for word in _words(at, piece)]
    lines = []
    for number, (at, word) in enumerate(words, start=1):
        past_the_rest = 2 * (len(words) - number) + 1
        lines.append((_LOAD[len(word)], 0, 0, at))
        lines.append((_IS, 0, past_the_rest, int.from_bytes(word, "big")))
    return [*lines, (_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)]


def _words(at: int, piece: bytes) -> Iterator[tuple[int, bytes]]:
    """As many bytes at once as the filter can compare."""
    while piece:
        size = next(size for size in _LOAD if size <= len(piece))
        yield at, piece[:size]
        at, piece = at + size, piece[size:]


class _Ear:
    def __init__(self, about: Exchange, sending: socket.socket, hearing: socket.socket) -> None:
        self._about = about
        self._sending = sending
        self._hearing = hearing

    def ask(self) -> None:
        try:
            self._sending.send(self._about.question)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise

    def heard(self) -> list[Sign]:
        signs = []
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                frame, control, _, _ = self._hearing.recvmsg(_LONGEST, 64)
                is_answer = self._about.is_answer(frame)
                if is_answer or self._about.is_question(frame):
                    signs.append(Sign(_time_of(control), is_answer))
        return signs


def _time_of(control: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS):
            seconds, nanoseconds = _TIME.unpack(data[: _TIME.size])
            return float(seconds) + float(nanoseconds) / 1e9
    raise OSError(errno.ENOTSUP, "this kernel does not say when a frame came")
