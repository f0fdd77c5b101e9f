"""`etcd://HOST:PORT[,HOST:PORT…][/PREFIX]`: the members of one cluster, and where in it we live."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "etcd://"
_MEMBER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})").fullmatch
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9._/-]*[a-z0-9])?").fullmatch


@dataclass(frozen=True, slots=True)
class Address:
    members: tuple[str, ...]
    prefix: str = "vsignal"


def parse_address(text: str) -> Address:
    """Raises ValueError with what to write instead."""
    if not text.startswith(SCHEME):
        raise ValueError("use etcd://HOST:PORT,HOST:PORT,HOST:PORT")
    where, slash, prefix = text.removeprefix(SCHEME).partition("/")
    members = tuple(where.split(","))
    for member in members:
        found = _MEMBER(member)
        if not found or not 0 < int(found[2]) < 65536:
            raise ValueError(f"etcd: use HOST:PORT or [V6]:PORT, not {member!r}")
    if len(set(members)) != len(members):
        raise ValueError("etcd: the same member twice")
    if slash and not _PREFIX(prefix):
        raise ValueError(f"etcd: a prefix is of a-z, 0-9, '.', '-', '_' and '/', not {prefix!r}")
    return Address(members, prefix) if slash else Address(members)
