"""How a guest's move looks from a third host on its network: what it is to listen to, and what it
heard."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ListenStage(StrEnum):
    BEGIN = "begin"  # ask the guest for a sign of life, again and again
    LAST = "last"  # it runs at its destination: until it answers
    STOP = "stop"  # nobody wants to know any more


@dataclass(frozen=True, slots=True)
class Listen:
    """Whom to ask: the guest's interface on the network `vni`, with an address of its,
    IPv4 or IPv6."""

    operation_id: str
    stage: ListenStage
    vni: int = 0
    mac: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """The longest time without an answer, in milliseconds; or why it is not known."""

    operation_id: str
    longest_ms: float = 0.0
    why: str = ""
