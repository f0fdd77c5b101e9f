"""vServers come, go silent, and come back (draft 4.1, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.model.operation import Operation
from common.model.server import Liveness, Server
from vcenter.core import indexes, keys, standby
from vcenter.core.command import Decision
from vcenter.core.movement import destination_silent
from vcenter.core.overlay import Overlay
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class AttachServer:
    """An agent says hello: its own word on what the host is. `replica`: to whom."""

    server: Server
    replica: str = ""

    def decide(self, view: View, now_ms: int) -> Decision:
        known = view.server(self.server.server_id)
        server = replace(
            self.server,
            liveness=Liveness.ATTACHED,
            last_seen_ms=now_ms,
            cordoned=known is not None and known.cordoned,
            attached_to=self.replica,
            fenced_ms=0,
            revision=0,
        )
        return Decision((Change(keys.server(server.server_id), server),), server)


@dataclass(frozen=True, slots=True)
class CordonServer:
    """Whether VMs may be placed there; the operator's word, which an agent cannot change."""

    server_id: str
    cordoned: bool

    def decide(self, view: View, now_ms: int) -> Decision:
        server = view.must_server(self.server_id)
        if server.cordoned == self.cordoned:
            return Decision(reply=server)
        said = replace(server, cordoned=self.cordoned)
        return Decision((Change(keys.server(self.server_id), said),), said)


@dataclass(frozen=True, slots=True)
class LapseServer:
    """The lease ran out. Its VMs stay where the ledger has them: silence is no proof (I7).

    `replica`: where the agent was attached; if it is attached elsewhere by now nothing has lapsed.
    """

    server_id: str
    replica: str = ""

    def decide(self, view: View, now_ms: int) -> Decision:
        server = view.server(self.server_id)
        attached = server is not None and server.liveness is Liveness.ATTACHED
        if attached and server is not None and server.attached_to != self.replica:
            return Decision()
        overlay = Overlay(view)
        changes = self._silenced(view)
        overlay.add(changes)
        for move in list(overlay.all(Operation, indexes.ACTIVE)):
            if move.apart:
                decided = standby.host_silent(overlay, move, self.server_id, now_ms).changes
            elif move.destination == self.server_id:
                decided = destination_silent(overlay, move, now_ms).changes
            else:
                continue
            overlay.add(decided)
            changes += decided
        return Decision(tuple(changes))

    def _silenced(self, view: View) -> list[Change]:
        server = view.server(self.server_id)
        if server is None or server.liveness is Liveness.SILENT:
            return []
        return [_silent(server)]


@dataclass(frozen=True, slots=True)
class Restarted:
    """A vCenter that has just started knows of no agent; each has one lease to come back. Those
    that are attached to `others`, who serve the same ledger, stay so."""

    others: frozenset[str] = frozenset()

    def decide(self, view: View, now_ms: int) -> Decision:
        attached = [s for s in view.all(Server, indexes.SERVERS) if s.liveness is Liveness.ATTACHED]
        return Decision(tuple(_silent(s) for s in attached if s.attached_to not in self.others))


def _silent(server: Server) -> Change:
    silent = replace(server, liveness=Liveness.SILENT, attached_to="")
    return Change(keys.server(server.server_id), silent)
