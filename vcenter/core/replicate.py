"""5.6, VM Replication: part of the contract, not built yet (A18)."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import Reason, Refusal
from vcenter.core.command import Decision
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Replicate:
    vm_id: str
    near: str
    standby: bool

    def decide(self, view: View, now_ms: int) -> Decision:
        raise Refusal(Reason.UNIMPLEMENTED, "replication is not built yet; relocate the VM instead")
