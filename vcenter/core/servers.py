"""vServers come, go silent, and come back (draft 4.1, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.model.operation import Operation
from common.model.server import Liveness, Server
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.movement import destination_silent
from vcenter.core.overlay import Overlay
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class AttachServer:
    """An agent says hello: its own word on what the host is."""

    server: Server

    def decide(self, view: View, now_ms: int) -> Decision:
        server = replace(self.server, liveness=Liveness.ATTACHED, last_seen_ms=now_ms, revision=0)
        return Decision((Change(keys.server(server.server_id), server),), server)


@dataclass(frozen=True, slots=True)
class LapseServer:
    """The lease ran out. Its VMs stay where the ledger has them: silence is no proof (I7)."""

    server_id: str

    def decide(self, view: View, now_ms: int) -> Decision:
        overlay = Overlay(view)
        changes = self._silenced(view)
        overlay.add(changes)
        for move in list(overlay.all(Operation, indexes.ACTIVE)):
            if move.destination == self.server_id:
                decided = destination_silent(overlay, move, now_ms).changes
                overlay.add(decided)
                changes += decided
        return Decision(tuple(changes))

    def _silenced(self, view: View) -> list[Change]:
        server = view.server(self.server_id)
        if server is None or server.liveness is Liveness.SILENT:
            return []
        return [Change(keys.server(self.server_id), replace(server, liveness=Liveness.SILENT))]


@dataclass(frozen=True, slots=True)
class Restarted:
    """A vCenter that has just started knows of no agent; each has one lease to come back."""

    def decide(self, view: View, now_ms: int) -> Decision:
        attached = [s for s in view.all(Server, indexes.SERVERS) if s.liveness is Liveness.ATTACHED]
        return Decision(
            tuple(
                Change(keys.server(s.server_id), replace(s, liveness=Liveness.SILENT))
                for s in attached
            )
        )
