"""kill -9 of each part of a move at each of its boundaries, on real hosts: one owner, or none.

A cell is a part and a moment. After the kill the part is started again (a QEMU is not), and when
the operation has ended, virsh, the process table and the guest's heartbeat are asked: exactly one
host runs the guest and the ledger says the same; or nobody runs it, which is right only where the
kill took the guest itself, and the ledger says `shut-off` or `LOST_NEEDS_FENCE`. The heartbeat
counts: two guests from one would be seen counting the same numbers twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import grpc

from common.pb.vsignal.v1 import operations_pb2 as op
from common.pb.vsignal.v1 import types_pb2
from deploy.faults.crash_rig import RUNNING, Gone, Rig, kill_qemu, rig, until
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
_PHASES = {
    "preparing": op.PHASE_PREPARING,
    "copying": op.PHASE_COPYING,
    "switching": op.PHASE_SWITCHING,
    "settling": op.PHASE_SETTLING,
    "ended": op.PHASE_SUCCEEDED,
    "aborting": op.PHASE_ABORTING,
    "cancelled": op.PHASE_CANCELLED,
}
_SLOWLY, _FREELY = 16, 10_000  # MiB/s
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
    heart: str
    seconds: float
    problem: str = ""


def cells() -> list[Cell]:
    return [Cell(victim, moment) for moment in MOMENTS for victim in VICTIMS]


class Matrix:
    """Cells one after the other on one rig; a guest that has survived is used again."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._last: tuple[Guest, str] | None = None

    def run(self, cell: Cell) -> Outcome:
        started = time.monotonic()
        guest = self._ready()
        source = guest.host
        other = self._rig.lab.host(3 - source.number)
        guest.limit_copy(_SLOWLY if _is_slow(cell) else _FREELY)
        with self._rig.heartbeats(guest) as beats:
            move = self._rig.relocate(guest, other)
            seen = self._await(cell, move)
            self._kill(cell, guest, source, other)
            problem, done = self._judge(cell, guest, move)
            heart = self._listen(guest, beats)
            if not problem and twice(beats()):
                problem = f"two heartbeats: {beats()[-30:]}"
        ended = op.Phase.Name(done.phase).removeprefix("PHASE_").lower()
        where = "+".join(self._rig.in_state(guest, "running")) or "nobody"
        self._last = (guest, problem)
        took = round(time.monotonic() - started, 1)
        return Outcome(cell.victim, cell.moment, seen, ended, where, heart, took, problem)

    def _await(self, cell: Cell, move: str) -> str:
        """Returns the phase at the moment; one that never came is the move's end."""
        cancelling = cell.moment in ("aborting", "cancelled")
        last = op.Operation()
        for last in self._rig.follow(move):
            if cancelling and _share(last) >= 0.3 and not last.cancel_requested:
                self._rig.cancel(move)
            if _has_come(cell, last):
                break
        return op.Phase.Name(last.phase).removeprefix("PHASE_").lower()

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
            words = ("migrate-setspeed", guest.name, str(_FREELY))
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

    def _listen(self, guest: Guest, beats: Callable[[], list[int]]) -> str:
        """Whether the heart of a guest that runs is heard in the end: told, not judged, for QEMU
        without KVM may have broken the guest (docs/performance.md)."""
        so_far = len(beats())
        if not self._rig.in_state(guest, "running"):
            return "-"
        try:
            until("the guest's heart beats", lambda: len(beats()) > so_far, 8)
        except Gone:
            return "not heard"
        return "heard"

    def _agree(self, guest: Guest) -> bool:
        running = self._rig.in_state(guest, "running")
        owner, state = self._rig.owner(guest)
        if self._rig.in_state(guest, "paused") or len(running) != self._rig.processes(guest):
            return False
        if not running:
            return state in _DEAD
        return running == [owner] and state == RUNNING

    def _facts(self, guest: Guest) -> str:
        words = ("running", "paused", "shutoff")
        seen = {word: self._rig.in_state(guest, word) for word in words}
        owner: object = "no answer"
        with suppress(grpc.RpcError):
            owner = self._rig.owner(guest)
        return f"{seen}, {self._rig.processes(guest)} processes, ledger {owner}"

    def _ready(self) -> Guest:
        """The guest of the cell before, if it is well."""
        last, self._last = self._last, None
        if last is not None:
            guest, problem = last
            running = self._rig.in_state(guest, "running")
            if len(running) == 1 and not problem:
                return guest.on(self._rig.lab.host(int(running[0][1:])))
            self._rig.wipe(guest)
        return self._rig.fresh_guest()


def _is_slow(cell: Cell) -> bool:
    return cell.moment.startswith("copied") or cell.moment in ("aborting", "cancelled")


def _share(seen: op.Operation) -> float:
    if seen.phase != op.PHASE_COPYING or not seen.progress.bytes_total:
        return 0.0
    return 1 - seen.progress.bytes_remaining / seen.progress.bytes_total


def _has_come(cell: Cell, seen: op.Operation) -> bool:
    if cell.moment.startswith("copied-"):
        share = int(cell.moment.removeprefix("copied-").removesuffix("%")) / 100
        return seen.done or _share(seen) >= share
    return seen.done or seen.phase == _PHASES[cell.moment]


def twice(beats: list[int]) -> bool:
    """Whether a count comes again before all the others had their turn."""
    steps = ((b - a) % 1000 for a, b in pairwise(beats))
    return any(step == 0 or step > 500 for step in steps)


def run(wanted: list[Cell], tell: Callable[[Outcome], None]) -> Iterator[Outcome]:
    with rig() as made:
        matrix = Matrix(made)
        for cell in wanted:
            outcome = matrix.run(cell)
            tell(outcome)
            if outcome.problem:
                print(made.logs(), file=sys.stderr)
            yield outcome


def _line(outcome: Outcome) -> str:
    text = f"{outcome.victim:22}{outcome.moment:12}killed in {outcome.killed_in:12}"
    text += f"ended {outcome.ended:18}runs on {outcome.guest:8}heart {outcome.heart:10}"
    text += f"{outcome.seconds:5.1f} s"
    return f"{text}  {'PROBLEM: ' + outcome.problem if outcome.problem else 'ok'}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/crash-matrix", description=__doc__)
    parser.add_argument("--victim", action="append", choices=VICTIMS, help="only these parts")
    parser.add_argument("--moment", action="append", choices=MOMENTS, help="only these moments")
    parser.add_argument("--json", metavar="FILE", help="write every cell's outcome")
    given = parser.parse_args()
    wanted = [
        cell
        for cell in cells()
        if cell.victim in (given.victim or VICTIMS) and cell.moment in (given.moment or MOMENTS)
    ]
    outcomes = list(run(wanted, lambda outcome: print(_line(outcome), flush=True)))
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(o) for o in outcomes], indent=2) + "\n")
    bad = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{len(outcomes)} cells, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
