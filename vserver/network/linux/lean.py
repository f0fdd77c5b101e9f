"""What the kernel says of links and forwarding entries, read for the few fields that we use.

pyroute2 makes an object of each of a link's forty attributes, 1.2 ms a link; an agent looks at
links ten times in a move, while the guests of its host wait for the same cores. These classes take
the place of the library's own for one socket; sockets, requests and errors stay the library's.
"""

from __future__ import annotations

import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.rtnl import RTM_NEWLINK, RTM_NEWNEIGH

_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _NEIGHBOUR = struct.Struct("=BxHiII"), struct.Struct("=BxxxiHBB")
_ADDRESS = {4: socket.AF_INET, 16: socket.AF_INET6}
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

# linux/if_link.h, linux/neighbour.h
_IFNAME, _MTU, _MASTER, _LINKINFO, _IFALIAS = 3, 4, 10, 18, 20
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 15, 17
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9


class _Lean(dict[str, Any], ABC):
    """As pyroute2 wants its messages: made of a buffer and an offset, then decoded."""

    fixed: struct.Struct

    def __init__(self, data: bytes, offset: int = 0) -> None:
        super().__init__()
        self._data, self._offset = data, offset

    def decode(self) -> None:
        """A request that comes back in an error may be cut short: what is missing is left out."""
        data, start = self._data, self._offset + _HEADER.size
        length, kind, flags, sequence, pid = _HEADER.unpack_from(data, self._offset)
        header = {"length": length, "type": kind, "flags": flags, "error": None}
        self["header"] = header | {"sequence_number": sequence, "pid": pid}
        end = min(self._offset + length, len(data))
        if start + self.fixed.size <= end:
            self.read(
                self.fixed.unpack_from(data, start),
                dict(_attributes(data, start + self.fixed.size, end)),
            )

    @abstractmethod
    def read(self, fields: tuple[int, ...], attributes: dict[int, bytes]) -> None:
        """Keep what is used of the fixed part and of the attributes, which are by their type."""


class LeanLink(_Lean):
    """`vxlan`: its id, port, own address and whether it learns; None for other kinds."""

    fixed = _LINK

    def read(self, fields: tuple[int, ...], attributes: dict[int, bytes]) -> None:
        info = _nested(attributes.get(_LINKINFO, b""))
        kind = _text(info.get(_INFO_KIND, b""))
        self.update(
            index=fields[2],
            flags=fields[3],
            ifname=_text(attributes.get(_IFNAME, b"")),
            ifalias=_text(attributes.get(_IFALIAS, b"")),
            mtu=_number(attributes.get(_MTU, b"")),
            master=_number(attributes.get(_MASTER, b"")),
            kind=kind,
            vxlan=_vxlan(_nested(info.get(_INFO_DATA, b""))) if kind == "vxlan" else None,
        )


class LeanNeighbour(_Lean):
    """`dst`: the remote end, or None; `master`: the bridge's index, or 0."""

    fixed = _NEIGHBOUR

    def read(self, fields: tuple[int, ...], attributes: dict[int, bytes]) -> None:
        self.update(
            ifindex=fields[1],
            state=fields[2],
            flags=fields[3],
            lladdr=attributes.get(_NDA_LLADDR, b"").hex(":"),
            dst=_address(attributes.get(_NDA_DST, b"")),
            master=_number(attributes.get(_NDA_MASTER, b"")),
        )


CLASSES: dict[int, type[_Lean]] = {RTM_NEWLINK: LeanLink, RTM_NEWNEIGH: LeanNeighbour}


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _nested(data: bytes) -> dict[int, bytes]:
    return dict(_attributes(data, 0, len(data)))


def _vxlan(data: dict[int, bytes]) -> dict[str, Any]:
    return {
        "id": _number(data.get(_VXLAN_ID, b"")),
        "port": int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
        "local": _address(data.get(_VXLAN_LOCAL, b"") or data.get(_VXLAN_LOCAL6, b"")),
        "learning": bool(_number(data.get(_VXLAN_LEARNING, b""))),
    }


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _address(data: bytes) -> str | None:
    family = _ADDRESS.get(len(data))
    return socket.inet_ntop(family, data) if family is not None else None
