"""What the services are made of: the vCenter's parts, handed to each of them."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from vcenter.board import Board
from vcenter.ledger import Ledger
from vcenter.monitor import Monitor
from vcenter.sessions import Sessions
from vcenter.wire.answers import Answers
from vcenter.wire.caller import TrustedNetwork


@dataclass(frozen=True, slots=True)
class Parts:
    """Composed once, in `vcenter.app`."""

    domain: str
    ledger: Ledger
    sessions: Sessions
    monitor: Monitor
    board: Board
    answers: Answers
    clock: Clock
    trusted: tuple[TrustedNetwork, ...]
    bookmark_seconds: float = 10.0


class Servicer:
    """Base of the services: the parts, and the name under which `rules` knows the service."""

    service = ""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.trusted = parts.trusted
        self.ledger = parts.ledger
        self.table = parts.ledger.table
