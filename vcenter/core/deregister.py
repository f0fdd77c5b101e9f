"""5.2, VM Configuration Deregistration: only the owner, at the current epoch (A14).

A late deregister from the old host of a moved VM changes nothing. What stays is a tombstone with
the epoch, so that the epoch never goes back when the VM returns (I3).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import Reason, Refusal
from common.model.operation import Failure
from common.model.vm import Tombstone, VmRecord
from vcenter.core import keys
from vcenter.core.command import Decision
from vcenter.core.standby import end_with
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Deregister:
    server_id: str
    vm_id: str
    epoch: int

    def decide(self, view: View, now_ms: int) -> Decision:
        record = view.must_vm(self.vm_id)
        self._check_owner(record)
        if record.operation_id:
            raise Refusal(
                Reason.ALREADY_MOVING,
                f"VM {self.vm_id} is being moved; the move decides what becomes of it",
                evidence={"operation": record.operation_id},
            )
        grave = Tombstone(self.vm_id, record.location.epoch, now_ms, record)
        gone = Change(keys.vm(self.vm_id), None), Change(keys.gone(self.vm_id), grave)
        why = Failure(Reason.UNKNOWN_VM.name, f"it was removed from {self.server_id}")
        standby = end_with(view, self.vm_id, why, now_ms)
        return Decision((*gone, *standby.changes))

    def _check_owner(self, record: VmRecord) -> None:
        held = record.location
        evidence = {"owner": held.server_id, "epoch": str(held.epoch)}
        if self.epoch != held.epoch:
            raise Refusal(
                Reason.STALE_EPOCH,
                f"VM {self.vm_id} is at epoch {held.epoch}, not {self.epoch}",
                evidence=evidence,
            )
        if held.server_id != self.server_id:
            raise Refusal(
                Reason.NOT_OWNER,
                f"VM {self.vm_id} belongs to vServer {held.server_id}",
                evidence=evidence,
            )
