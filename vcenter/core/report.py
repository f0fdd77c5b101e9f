"""5.7, VM Report: states that changed on a host become the ledger's (A19).

Usage figures are not the ledger's: they go to `vcenter.agents.monitor`, in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.model.server import VmStatus
from common.model.vm import VmRecord, VmState
from vcenter.core import keys
from vcenter.core.command import Decision
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Report:
    """Replies with the vm_ids that are not registered to the caller."""

    server_id: str
    statuses: tuple[VmStatus, ...]

    def decide(self, view: View, now_ms: int) -> Decision:
        view.must_server(self.server_id)
        unknown = []
        changes = []
        for status in self.statuses:
            record = view.vm(status.vm_id)
            if record is None or record.location.server_id != self.server_id:
                unknown.append(status.vm_id)
            elif _news(record, status):
                location = replace(record.location, state=status.state)
                changed = replace(record, location=location, changed_ms=now_ms)
                changes.append(Change(keys.vm(status.vm_id), changed))
        return Decision(tuple(changes), tuple(unknown))


def _news(record: VmRecord, status: VmStatus) -> bool:
    """A report from before the VM's last change of owner is no news; a move speaks for itself."""
    return (
        status.epoch == record.location.epoch
        and status.state is not record.location.state
        and status.state is not VmState.INCOMING
        and record.location.state is not VmState.LOST_NEEDS_FENCE
        and not record.operation_id
    )
