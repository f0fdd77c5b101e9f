"""Tells the host beside a move to listen to its guest: what it is to do follows from each change of
the operation. An order that nobody takes, or nobody answers, leaves a receipt without a blackout.
"""

from __future__ import annotations

from common.model.operation import Operation
from vcenter.agents.sessions import Sessions
from vcenter.core.blackout import order_to_listen
from vcenter.ledger.feed import Committed, Feed


class Listening:
    def __init__(self, feed: Feed, sessions: Sessions) -> None:
        self._table = feed.table
        self._sessions = sessions
        feed.listen(self._committed, Operation)

    def _committed(self, committed: Committed) -> None:
        for change in committed.changes:
            if isinstance(change.after, Operation):
                before = change.before if isinstance(change.before, Operation) else None
                order = order_to_listen(self._table, before, change.after)
                if order is not None:
                    self._sessions.listen(change.after.receipt.observer, order)
