"""What a move looks like from beside it: which third host listens to its guest, and what it heard.

The move waits for none of this. Whom to ask is written down with the move's turn, what was heard
when it comes: a moment after the guest runs at its destination, or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from common.model.operation import MoveKind, Operation, Phase, Receipt
from common.model.place import is_abroad
from common.model.server import Liveness
from common.model.silence import Listen, ListenStage, Silence
from common.model.vm import Interface, VmRecord
from vcenter.core.command import Decision
from vcenter.core.movement import put
from vcenter.core.view import View

_RUNS_AGAIN = (Phase.SETTLING, Phase.SUCCEEDED)


def observed(view: View, move: Operation) -> Receipt:
    """The receipt with whom to ask, chosen by the operation's id among those that can say; or why
    nobody can."""
    if move.move_kind is MoveKind.STANDBY or is_abroad(move.source):
        return move.receipt
    if move.move_kind not in (MoveKind.LIVE, MoveKind.SUSPEND):
        return replace(move.receipt, blackout_why="its guest is off while it is moved")
    record = view.vm(move.vm_id)
    heard = _audible(record) if record is not None else None
    if heard is None:
        return replace(move.receipt, blackout_why="no address of it is known")
    hosts = sorted(_neighbours(view, move, heard[0].vni))
    if not hosts:
        return replace(move.receipt, blackout_why="no third host is on its network")
    return replace(move.receipt, observer=hosts[crc32(move.operation_id.encode()) % len(hosts)])


def _audible(record: VmRecord) -> tuple[Interface, str] | None:
    """An interface that can be asked, and an address to ask for: IPv4 where there is one."""
    own = [(each, ip) for each in record.vm.interfaces if each.vni for ip in each.ips]
    return min(own, key=lambda pair: ":" in pair[1], default=None)


def _neighbours(view: View, move: Operation, vni: int) -> Iterator[str]:
    """Hosts of the network that have no part in the move, and can be told to listen."""
    for host in {*view.owners_on(vni)} - {move.source, move.destination}:
        server = view.server(host)
        there = server is not None and server.liveness is Liveness.ATTACHED
        if there and not is_abroad(host):
            yield host


def order_to_listen(view: View, before: Operation | None, move: Operation) -> Listen | None:
    """What the move's observer is to do now that it has gone from `before` to this."""
    if not move.receipt.observer or is_abroad(move.source):
        return None  # a move from another domain is observed there
    was = before.phase if before is not None else None
    if move.phase is Phase.PREPARING and was is not Phase.PREPARING:
        record = view.vm(move.vm_id)
        heard = _audible(record) if record is not None else None
        if heard is None:
            return None
        interface, ip = heard
        where = interface.vni, interface.mac, ip
        return Listen(move.operation_id, ListenStage.BEGIN, *where)
    if was in _RUNS_AGAIN or was is move.phase:
        return None
    if move.phase in _RUNS_AGAIN:
        return Listen(move.operation_id, ListenStage.LAST)
    ended = move.phase.final or move.phase is Phase.ABORTING
    return Listen(move.operation_id, ListenStage.STOP) if ended else None


@dataclass(frozen=True, slots=True)
class Heard:
    """An observer's word. Of the operation's own, once; and a time only of a guest that was
    moved. Anything else changes nothing."""

    server_id: str
    silence: Silence

    def decide(self, view: View, now_ms: int) -> Decision:
        move = view.operation(self.silence.operation_id)
        if move is None or move.receipt.observer != self.server_id:
            return Decision()
        if move.receipt.blackout_ms is not None or move.receipt.blackout_why:
            return Decision()
        why = self.silence.why
        if not (why or move.epoch_after):
            return Decision()
        seen = None if why else self.silence.longest_ms
        receipt = replace(move.receipt, blackout_ms=seen, blackout_why=why)
        return Decision((put(replace(move, receipt=receipt)),))
