"""kill -9 of each part of a move at each of its boundaries, on real hosts: one owner, or none.

A cell is a part and a moment. After the kill the part is started again (a QEMU is not), and when
the operation has ended, virsh, the process table and the guest's heartbeat are asked: exactly one
host runs the guest and the ledger says the same; or nobody runs it, which is right only where the
kill took the guest itself, and the ledger says `shut-off` or `LOST_NEEDS_FENCE`. The heartbeat
counts: two guests from one would be seen counting the same numbers twice.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from common.pb.vsignal.v1 import operations_pb2 as op
from common.pb.vsignal.v1 import types_pb2
from deploy.faults.crash_rig import RUNNING, Rig, kill_qemu, rig
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
    share,
    unhealthy,
    wanted,
)
from deploy.faults.until import Gone, until
from deploy.lab import Guest, Host

VICTIMS = (
    "vcenter",
    "source-agent",
    "destination-agent",
    "source-qemu",
    "destination-qemu",
    "source-libvirtd",
    "destination-libvirtd",
)
MOMENTS = (
    "preparing",
    "copying",
    "copied-1%",
    "copied-50%",
    "copied-90%",
    "switching",
    "settling",
    "ended",
    "aborting",
    "cancelled",
)
_DEAD = (types_pb2.VM_STATE_SHUT_OFF, types_pb2.VM_STATE_LOST_NEEDS_FENCE)


@dataclass(frozen=True)
class Cell:
    victim: str
    moment: str


@dataclass(frozen=True)
class Outcome:
    """`problem` "" is what everybody wants."""

    victim: str
    moment: str
    killed_in: str
    ended: str
    guest: str
    seconds: float
    problem: str = ""


def cells() -> list[Cell]:
    return [Cell(victim, moment) for moment in MOMENTS for victim in VICTIMS]


class Matrix:
    """Cells one after the other on one rig; a guest that has survived is used again."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._guests = Guests(rig)

    def run(self, cell: Cell) -> Outcome:
        started = time.monotonic()
        guest = self._guests.ready()
        source = guest.host
        other = self._rig.lab.host(3 - source.number)
        guest.limit_copy(SLOWLY if _is_slow(cell) else FREELY)
        with Heart(guest, self._rig.lab.hosts) as heart:
            until("the guest's heart beats", heart.beats)
            move = self._rig.relocate(guest, other)
            seen = self._await(cell, move)
            self._kill(cell, guest, source, other)
            problem, done = self._judge(cell, guest, move)
            running = self._rig.in_state(guest, "running")
            problem = unhealthy(bool(running), heart) or problem
        self._guests.used(guest, problem)
        where = "+".join(running) or "nobody"
        took = round(time.monotonic() - started, 1)
        return Outcome(cell.victim, cell.moment, seen, named(done), where, took, problem)

    def _await(self, cell: Cell, move: str) -> str:
        """Returns the phase at the moment; one that never came is the move's end."""
        cancelling = cell.moment in ("aborting", "cancelled")
        last = op.Operation()
        for last in self._rig.follow(move):
            if cancelling and share(last) >= 0.3 and not last.cancel_requested:
                self._rig.cancel(move)
            if has_come(cell.moment, last):
                break
        return named(last)

    def _kill(self, cell: Cell, guest: Guest, source: Host, other: Host) -> None:
        lab = self._rig
        sides = {"source": source, "destination": other}
        side, _, part = cell.victim.partition("-")
        if cell.victim == "vcenter":
            lab.center.kill9()
            lab.center.start()
        elif part == "agent":
            victim = lab.agents[sides[side].number - 1]
            victim.kill9()
            victim.start()
        elif part == "libvirtd":
            sides[side].kill9_libvirtd()
            sides[side].start_libvirtd()
        else:
            kill_qemu(guest.on(sides[side]))
        for host in (source, other):
            words = ("migrate-setspeed", guest.name, str(FREELY))
            host.virsh(*words, check=False)

    def _judge(self, cell: Cell, guest: Guest, move: str) -> tuple[str, op.Operation]:
        done = op.Operation()
        try:
            until("the move has ended", lambda: self._rig.get(move).done, 60)
            done = self._rig.get(move)
            until("the ledger and the hosts agree", lambda: self._agree(guest), 30)
        except Gone as error:
            return f"{error}; {self._facts(guest)}", done
        if self._rig.in_state(guest, "running"):
            return "", done
        moved = bool(done.epoch_after)
        excused = cell.victim == "source-qemu" or (cell.victim == "destination-qemu" and moved)
        return ("" if excused else f"nobody runs it; {self._facts(guest)}"), done

    def _agree(self, guest: Guest) -> bool:
        running = self._rig.in_state(guest, "running")
        owner, state = self._rig.owner(guest)
        if self._rig.in_state(guest, "paused") or len(running) != self._rig.processes(guest):
            return False
        if not running:
            return state in _DEAD
        return running == [owner] and state == RUNNING

    def _facts(self, guest: Guest) -> str:
        return facts(self._rig, guest, lambda: self._rig.owner(guest))


def _is_slow(cell: Cell) -> bool:
    return cell.moment.startswith("copied") or cell.moment in ("aborting", "cancelled")


def _line(outcome: Outcome) -> str:
    text = f"{outcome.victim:22}{outcome.moment:12}killed in {outcome.killed_in:12}"
    return f"{text}ended {outcome.ended:18}runs on {outcome.guest:8}"


def main() -> int:
    parser = arguments("crash-matrix", __doc__, victim=VICTIMS, moment=MOMENTS)
    given = parser.parse_args()
    with rig() as made:
        outcomes = map(Matrix(made).run, wanted(cells(), given))
        return report(outcomes, _line, made.logs, given.json)


if __name__ == "__main__":
    sys.exit(main())
