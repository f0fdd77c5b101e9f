"""The line between two domains is cut at each boundary of a move from one to the other, on real
hosts: one owner, or none.

A cell is a direction, in which frames are lost, and a moment. The cut lasts a while, then the line
is mended. virsh, the process table and the guest's heartbeat are asked: never do two hosts run the
guest, and in the end exactly one does, and its domain's ledger alone says so; or nobody, and the
ledger says `LOST_NEEDS_FENCE`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from common.pb.vsignal.v1 import operations_pb2 as op
from common.pb.vsignal.v1 import types_pb2
from deploy.faults.crash_rig import RUNNING
from deploy.faults.cut_rig import Rig, rig
from deploy.faults.heart import Heart
from deploy.faults.matrix import (
    FREELY,
    SLOWLY,
    Guests,
    arguments,
    facts,
    has_come,
    named,
    report,
    unhealthy,
    wanted,
)
from deploy.faults.until import Gone, until
from deploy.lab import Guest, Host

WAYS = ("both", "to-destination", "to-source")
MOMENTS = ("preparing", "copying", "copied-50%", "switching", "settling", "ended")
LASTS_S = 8.0
_HEALED_WITHIN = 120.0  # libvirt gives a silent host up after 30 s


@dataclass(frozen=True)
class Cell:
    way: str
    moment: str


@dataclass(frozen=True)
class Outcome:
    """`problem` "" is what everybody wants. `healed`: seconds from mending to agreement."""

    way: str
    moment: str
    cut_in: str
    ended: str
    guest: str
    healed: float
    seconds: float
    problem: str = ""


def cells() -> list[Cell]:
    return [Cell(way, moment) for moment in MOMENTS for way in WAYS]


class Matrix:
    """Cells one after the other on one rig, from the east and from the west by turns."""

    def __init__(self, rig: Rig, lasts_s: float = LASTS_S) -> None:
        self._rig = rig
        self._lasts_s = lasts_s
        self._guests = Guests(rig)

    def run(self, cell: Cell) -> Outcome:
        started = time.monotonic()
        guest = self._guests.ready()
        source = guest.host
        other = self._rig.lab.host(3 - source.number)
        guest.limit_copy(SLOWLY if cell.moment == "copied-50%" else FREELY)
        with Heart(guest, self._rig.lab.hosts) as heart:
            until("the guest's heart beats", heart.beats)
            move = self._rig.relocate(guest, other)
            seen = self._await(cell, move, source)
            with self._rig.blocked(_ways(cell, source)):
                problem = self._watch(guest, other)
            mended = time.monotonic()
            source.virsh("migrate-setspeed", guest.name, str(FREELY), check=False)
            late, done = self._judge(guest, move, source)
            healed = time.monotonic() - mended
            running = self._rig.in_state(guest, "running")
            problem = unhealthy(bool(running), heart) or problem or late
        self._guests.used(guest, problem)
        where = "+".join(running) or "nobody"
        took, healed = round(time.monotonic() - started, 1), round(healed, 1)
        ended = named(done)
        return Outcome(cell.way, cell.moment, seen, ended, where, healed, took, problem)

    def _await(self, cell: Cell, move: str, source: Host) -> str:
        """Returns the phase at the moment; one that never came is the move's end."""
        last = op.Operation()
        for last in self._rig.follow(move, source):
            if has_come(cell.moment, last):
                break
        return named(last)

    def _watch(self, guest: Guest, other: Host) -> str:
        """For as long as the cut lasts. The destination is asked first: what runs there does not
        begin to run at the source while the answer travels."""
        until_then = time.monotonic() + self._lasts_s
        while time.monotonic() < until_then:
            arrived = guest.spec.uuid in _running(other)
            if arrived and guest.spec.uuid in _running(guest.host):
                return f"both hosts run it; {self._facts(guest)}"
            time.sleep(0.2)
        return ""

    def _judge(self, guest: Guest, move: str, source: Host) -> tuple[str, op.Operation]:
        done = op.Operation()
        try:
            until("the move ended", lambda: self._rig.get(move, source).done, _HEALED_WITHIN)
            done = self._rig.get(move, source)
            until("ledgers and hosts agree", lambda: self._agree(guest), 60)
        except Gone as error:
            return f"{error}; {self._facts(guest)}", done
        return "", done

    def _agree(self, guest: Guest) -> bool:
        running = self._rig.in_state(guest, "running")
        if self._rig.in_state(guest, "paused") or len(running) != self._rig.processes(guest):
            return False
        owners = self._rig.owners(guest)
        if not running:
            return [state for _, state in owners] == [types_pb2.VM_STATE_LOST_NEEDS_FENCE]
        where = [self._rig.lab.host(int(name[1:])) for name in running]
        return owners == [(f"{self._rig.domain_of(h)}/h{h.number}", RUNNING) for h in where]

    def _facts(self, guest: Guest) -> str:
        return facts(self._rig, guest, lambda: self._rig.owners(guest))


def _running(host: Host) -> list[str]:
    return host.virsh("list", "--uuid", "--state-running").split()


def _ways(cell: Cell, source: Host) -> tuple[str, ...]:
    """The line's, whose far end is the west."""
    there, back = ("out", "back") if source.number == 1 else ("back", "out")
    return {"both": (there, back), "to-destination": (there,), "to-source": (back,)}[cell.way]


def _line(outcome: Outcome) -> str:
    text = f"{outcome.way:16}{outcome.moment:12}cut in {outcome.cut_in:12}"
    text += f"ended {outcome.ended:18}runs on {outcome.guest:8}"
    return f"{text}healed {outcome.healed:5.1f} s  "


def main() -> int:
    parser = arguments("cut-matrix", __doc__, way=WAYS, moment=MOMENTS)
    parser.add_argument("--seconds", type=float, default=LASTS_S, help="how long each cut lasts")
    parser.add_argument("--ungated", action="store_true", help="libvirt does not ask the agents")
    given = parser.parse_args()
    with rig(not given.ungated) as made:
        outcomes = map(Matrix(made, given.seconds).run, wanted(cells(), given))
        return report(outcomes, _line, made.logs, given.json)


if __name__ == "__main__":
    sys.exit(main())
