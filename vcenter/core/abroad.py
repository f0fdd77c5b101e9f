"""A move to another domain, as far as it is planned here: that domain's vCenter has chosen the host
and has said what stands against it; here is said what stands against the VM's leaving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.errors import Reason
from common.model.operation import MoveKind
from common.model.server import Liveness, Server
from common.model.vm import VmRecord
from vcenter.core import keys
from vcenter.core.loads import Loads
from vcenter.core.overlay import Overlay
from vcenter.core.placement import Objection, movable, objections
from vcenter.core.planning import Plan
from vcenter.core.table import Change
from vcenter.core.view import View


@dataclass(frozen=True, slots=True)
class Planned:
    """The other domain's word on one VM. `creates`: what would be declared there, in words."""

    destination: Server | None
    objections: tuple[Objection, ...] = ()
    creates: tuple[str, ...] = ()


_UNPLANNED = Planned(
    None, (Objection(Reason.NO_DESTINATION, "it has come since this was planned: ask again"),)
)


@dataclass(frozen=True, slots=True)
class Abroad:
    """`planned` by vm_id; `on_behalf`: the caller as whom that domain's vCenter was asked."""

    planned: Mapping[str, Planned]
    on_behalf: str

    def plan(self, view: View, record: VmRecord, kind: MoveKind) -> Plan:
        """Both sides' objections."""
        word = self.planned.get(record.vm.vm_id, _UNPLANNED)
        if word.destination is None:
            found = (*movable(view, record, kind), *word.objections)
            return Plan(record, "", found, kind)
        overlay = Overlay(view)
        overlay.add(self.known(view))
        here = objections(overlay, Loads(overlay), record, word.destination, kind)
        said = {(o.reason, o.server_id) for o in word.objections}
        own = (o for o in here if (o.reason, o.server_id) not in said)
        every = (*own, *word.objections)
        return Plan(record, word.destination.server_id, every, kind, word.creates)

    def known(self, view: View) -> list[Change]:
        """The chosen hosts, as the hosts here are told of them."""
        found = {
            w.destination.server_id: w.destination for w in self.planned.values() if w.destination
        }
        return [
            Change(keys.server(server_id), server)
            for server_id, server in sorted(found.items())
            if _as_stored(view.server(server_id)) != server
        ]


def as_known(server: Server, server_id: str) -> Server:
    """A host of another domain, under the name that it has here. Whether it is there now, its own
    vCenter says when it is asked."""
    return replace(
        server,
        server_id=server_id,
        liveness=Liveness.ATTACHED,
        last_seen_ms=0,
        attached_to="",
        cordoned=False,
        fenced_ms=0,
        revision=0,
    )


def _as_stored(server: Server | None) -> Server | None:
    return replace(server, revision=0) if server is not None else None
