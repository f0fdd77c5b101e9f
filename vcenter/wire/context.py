"""What the services are made of: the vCenter's parts, handed to each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.clock import Clock
from common.ids import NewId, random_id
from vcenter.agents.monitor import Monitor
from vcenter.agents.sessions import Sessions
from vcenter.ca.issuer import Issuer
from vcenter.core.queue import Limits
from vcenter.federation.carrying import Carrier
from vcenter.federation.federation import Federation
from vcenter.federation.receiving import Receiver
from vcenter.federation.relay import Relay
from vcenter.federation.spanning import Spanning
from vcenter.federation.tellings import Tellings
from vcenter.ledger.ledger import Ledger
from vcenter.moves.board import Board
from vcenter.wire.answers import Answers
from vcenter.wire.caller import Callers
from vcenter.wire.limits import CallLimits
from vcenter.wire.shown import Shown


@dataclass(frozen=True, slots=True)
class Parts:
    """Composed once, in `vcenter.app`."""

    domain: str
    ledger: Ledger
    sessions: Sessions
    monitor: Monitor
    board: Board
    answers: Answers
    federation: Federation
    relay: Relay
    carrier: Carrier
    receiver: Receiver
    spanning: Spanning
    tellings: Tellings
    clock: Clock
    callers: Callers
    calls: CallLimits
    shown: Shown
    bookmark_seconds: float = 10.0
    new_id: NewId = random_id
    limits: Limits = Limits()
    has_fence: Callable[[str], bool] = lambda _: False
    issuer: Issuer | None = None  # where another CA signs, there is none here


class Servicer:
    """Base of the services: the parts, and the name under which `rules` knows the service."""

    service = ""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.callers = parts.callers
        self.ledger = parts.ledger
        self.table = parts.ledger.table
        self.audit = parts.ledger.audit
        self.limits = parts.calls
        self.shown = parts.shown
        self.relay = parts.relay
