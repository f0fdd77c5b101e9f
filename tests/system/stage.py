"""Two tenants, each with a VM on a host of its own, and somebody who calls every method."""

from __future__ import annotations

from typing import Any

import grpc

from common.clock import SystemClock
from common.errors import Refusal
from common.model.dispute import Dispute
from common.model.operation import Operation, Phase, PhaseTime
from common.model.server import Alert, Severity
from common.pb.vsignal.v1 import (
    session_pb2,
)
from common.status import refusal_from_call
from tests.support.described import replies
from tests.support.lab import Lab
from tests.system.who_may import CALLERS, FOUND, OTHERS, OWN, REQUESTS, Thing, host
from vcenter.core import keys
from vcenter.core.command import Decision
from vcenter.core.table import Change
from vcenter.core.view import View
from vcenter.ledger.records import decode


class Put:
    """Writes records as they are, to set the stage."""

    def __init__(self, *changes: Change) -> None:
        self._changes = changes

    def decide(self, view: View, now_ms: int) -> Decision:
        return Decision(self._changes)


class Stage:
    """Blue's VM 1 on host-1, red's VM 2 on host-2, each in group `web`, with a move that failed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    async def set(self) -> None:
        now = SystemClock().now_ms()
        for number in (1, 2, 3):
            await replies(self.lab, f"vserver/host-{number}", "Session/Attach",
                          [session_pb2.AgentMessage(
                              hello=session_pb2.Hello(server=host(f"host-{number}")))])  # fmt: skip
        for thing in (OWN, OTHERS):
            for method in ("Inventory/PutGroup",):
                await self.call("admin", method, thing)
            name = f"vserver/{thing.server}"
            request = REQUESTS["Signaling/Register"](thing)
            await replies(self.lab, name, "Signaling/Register", [request])
            move = Operation(
                thing.operation, "relocate", thing.vm_id, thing.server, "host-3", Phase.FAILED,
                "operator/ada", now, 1, ended_ms=now, phases=(PhaseTime(Phase.FAILED, now),),
            )  # fmt: skip
            alert = Alert(f"a-{thing.number}", "CLAIM_HELD", "", Severity.WARNING, 1, thing.vm_id)
            await self.lab.center.ledger.submit(
                Put(
                    Change(keys.operation(thing.operation), move),
                    Change(keys.alert(alert.alert_id), alert),
                    Change(keys.dispute(thing.claim), Dispute(thing.claim, thing.vm_id, 1, (), 1)),
                )
            )
        await self.lab.center.ledger.audit.flush()
        self._records = await self._stored()

    async def _stored(self) -> dict[str, Any]:
        return {
            r.key: decode(r.key, r.value) async for page in self.lab.store.snapshot() for r in page
        }

    async def reset(self) -> None:
        """As it was when it was set."""
        now = await self._stored()
        gone = [Change(key, None) for key in now.keys() - self._records.keys()]
        back = [Change(k, r) for k, r in self._records.items() if now.get(k) != r]
        await self.lab.center.ledger.submit(Put(*gone, *back))

    async def call(self, role: str, method: str, thing: Thing) -> tuple[str, Refusal | None]:
        said = REQUESTS[method](thing)
        asked = said if isinstance(said, list) else [said]
        try:
            answers = await replies(self.lab, CALLERS[role], method, asked)
        except grpc.RpcError as error:
            refusal = refusal_from_call(error)
            assert refusal is not None, f"{method}: not a refusal of ours: {error!r}"
            return refusal.reason.name, refusal
        found = FOUND.get(method)
        return ("ok" if found is None or found(answers[0], thing) else "none"), None
