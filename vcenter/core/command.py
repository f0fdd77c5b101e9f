"""What a command is: something that looks at a view and says what should change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from common.errors import Reason, Refusal
from common.model.server import Alert, Severity
from common.model.value import value
from vcenter.core import keys
from vcenter.core.ids import derived_id
from vcenter.core.table import Change
from vcenter.core.view import View


@value
class Decision:
    """`reply` for the caller once `changes` are durable; `refusal` is raised there instead.

    A refusal may still carry changes: the alert that it raises, nothing else.
    """

    changes: tuple[Change, ...] = ()
    reply: Any = None
    refusal: Refusal | None = None


class Command(Protocol):
    def decide(self, view: View, now_ms: int) -> Decision:
        """Pure. Raises `Refusal` if nothing changes."""
        ...


@dataclass(frozen=True, slots=True)
class Alarm:
    """A refusal that a person should see. Said twice, it is one alert."""

    reason: Reason
    message: str
    severity: Severity
    vm_id: str = ""
    server_id: str = ""
    evidence: dict[str, str] = field(default_factory=dict)
    withheld: bool = False  # the caller hears the reason alone, the operators everything
    besides: tuple[Change, ...] = ()

    def decision(self, view: View, now_ms: int) -> Decision:
        refusal = Refusal(self.reason, self.message, evidence=self.evidence)
        if self.withheld:
            refusal = Refusal(self.reason, self.reason.explanation)
        return Decision(self.changes(view, now_ms), refusal=refusal)

    def changes(self, view: View, now_ms: int) -> tuple[Change, ...]:
        evidence = tuple(sorted(self.evidence.items()))
        alert_id = derived_id(self.reason.name, self.vm_id, self.server_id, self.message)
        if view.get(keys.alert(alert_id)) is not None:
            return self.besides
        alert = Alert(
            alert_id=alert_id,
            reason=self.reason.name,
            message=self.message,
            severity=self.severity,
            raised_ms=now_ms,
            vm_id=self.vm_id,
            server_id=self.server_id,
            evidence=evidence,
        )
        return (Change(keys.alert(alert_id), alert), *self.besides)
