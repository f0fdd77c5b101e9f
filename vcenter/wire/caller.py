"""Who is calling: one function answers. Until certificates exist it reads a metadata key.

The key is believed only on a unix socket, on loopback, and from the networks that the
configuration names (the lab's own): it proves nothing elsewhere.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc.aio

from common.errors import Reason, Refusal
from common.model.identity import parse_name
from common.rpc import IDENTITY_KEY

TrustedNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Role(StrEnum):
    VSERVER = "vserver"
    OPERATOR = "operator"
    WATCHER = "watcher"


@dataclass(frozen=True, slots=True)
class Caller:
    role: Role
    name: str

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"


def caller_of(context: Context, trusted: tuple[TrustedNetwork, ...]) -> Caller:
    """Raises `Refusal(UNIDENTIFIED)`. What the body says of the caller is never asked (I9)."""
    if not _is_near(context.peer(), trusted):
        text = "plain-text identity is accepted on loopback and in trusted networks only"
        raise Refusal(Reason.UNIDENTIFIED, text)
    said = ""
    for key, value in context.invocation_metadata() or ():
        if key == IDENTITY_KEY:
            said = str(value)
            break
    return _read(said)


@lru_cache(maxsize=4096)
def _read(said: str) -> Caller:
    role, _, name = said.partition("/")
    try:
        return Caller(Role(role), parse_name(name))
    except ValueError:
        text = f"send {IDENTITY_KEY}: vserver/ID or operator/NAME, not {said!r}"
        raise Refusal(Reason.UNIDENTIFIED, text) from None


@lru_cache(maxsize=4096)
def _is_near(peer: str, trusted: tuple[TrustedNetwork, ...]) -> bool:
    """gRPC's own words for a peer: `unix:…`, `ipv4:10.0.0.1:1234`, `ipv6:%5B::1%5D:1234`.

    Kept for each connection: its calls all come from the same peer.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind == "unix":
        return True
    try:
        address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in trusted)
