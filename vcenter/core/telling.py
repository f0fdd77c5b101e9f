"""What a neighbour may learn of us is a record, so that its change has a place among all others:
what it follows is told up to there by the old rule, and begins anew by the new one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.model.telling import Telling
from vcenter.core import keys
from vcenter.core.command import Decision
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Tell:
    """Somebody says so, or (`by_command` False) that the configuration counts again."""

    telling: Telling

    def decide(self, view: View, now_ms: int) -> Decision:
        known = view.telling(self.telling.domain) or Telling(self.telling.domain)
        return _changed(known, self.telling)


@dataclass(frozen=True, slots=True)
class Configured:
    """The configuration, which may have changed since it was last written down."""

    telling: Telling

    def decide(self, view: View, now_ms: int) -> Decision:
        known = view.telling(self.telling.domain) or Telling(self.telling.domain)
        return Decision() if known.by_command else _changed(known, self.telling)


def _changed(known: Telling, wanted: Telling) -> Decision:
    if replace(known, revision=0) == wanted:
        return Decision()
    return Decision((Change(keys.telling(wanted.domain), wanted),))
