"""What the matrices of faults share: moments of a move, one guest after the other, the report."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc

from common.pb.vsignal.v1 import operations_pb2 as op
from deploy.faults.heart import Heart, twice
from deploy.faults.until import Gone, until
from deploy.faults.witness import Witness
from deploy.lab import Guest, Lab

Cell = TypeVar("Cell")
SLOWLY, FREELY = 16, 10_000  # MiB/s
PHASES = {
    "preparing": op.PHASE_PREPARING,
    "copying": op.PHASE_COPYING,
    "switching": op.PHASE_SWITCHING,
    "settling": op.PHASE_SETTLING,
    "ended": op.PHASE_SUCCEEDED,
    "aborting": op.PHASE_ABORTING,
    "cancelled": op.PHASE_CANCELLED,
}


def named(seen: op.Operation) -> str:
    """Its phase, as people say it."""
    return op.Phase.Name(seen.phase).removeprefix("PHASE_").lower()


def share(seen: op.Operation) -> float:
    """Of the memory, what is copied; 0 when none is being copied."""
    if seen.phase != op.PHASE_COPYING or not seen.progress.bytes_total:
        return 0.0
    return 1 - seen.progress.bytes_remaining / seen.progress.bytes_total


def has_come(moment: str, seen: op.Operation) -> bool:
    """A moment that never came has come with the move's end."""
    if moment.startswith("copied-"):
        return seen.done or share(seen) >= int(moment[len("copied-") : -1]) / 100
    return seen.done or seen.phase == PHASES[moment]


class Rig(Protocol):
    lab: Lab

    def fresh_guest(self) -> Guest: ...

    def wipe(self, guest: Guest) -> None: ...

    def in_state(self, guest: Guest, state: str) -> list[str]: ...


class Guests:
    """One guest for cell after cell, for as long as it comes out of them well."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._last: tuple[Guest, str] | None = None

    def ready(self) -> Guest:
        last, self._last = self._last, None
        if last is not None:
            guest, problem = last
            running = self._rig.in_state(guest, "running")
            if len(running) == 1 and not problem:
                return guest.on(self._rig.lab.host(int(running[0][1:])))
            self._rig.wipe(guest)
        return self._rig.fresh_guest()

    def used(self, guest: Guest, problem: str) -> None:
        self._last = (guest, problem)


def unhealthy(runs: bool, heart: Heart) -> str:
    """A problem: two guests from one, or a guest that runs, by everybody's word, and does not."""
    so_far = len(heart.beats())
    if runs:
        try:
            until("the guest's heart beats", lambda: len(heart.beats()) > so_far, 20)
        except Gone:
            return "it runs, and its heart is not heard"
    again = twice(heart.beats())
    return f"heard more than once: {again[:20]}" if again else ""


def facts(witness: Witness, guest: Guest, ledger: Callable[[], object]) -> str:
    """What everybody says of a guest that did not come out well."""
    seen = {word: witness.in_state(guest, word) for word in ("running", "paused", "shutoff")}
    told: object = "no answer"
    with suppress(grpc.RpcError):
        told = ledger()
    return f"{seen}, {witness.processes(guest)} processes, ledger {told}"


def arguments(prog: str, about: str | None, **axes: Sequence[str]) -> ArgumentParser:
    """`--AXIS` narrows what a cell's AXIS may be; `--json`."""
    parser = ArgumentParser(prog=f"./scripts/{prog}", description=about)
    for axis, values in axes.items():
        parser.add_argument(f"--{axis}", action="append", choices=values, help="only these")
    parser.add_argument("--json", metavar="FILE", help="write every cell's outcome")
    return parser


def wanted(cells: Iterable[Cell], given: Namespace) -> list[Cell]:
    def named_by(cell: Cell) -> bool:
        asked = ((getattr(given, axis), value) for axis, value in vars(cell).items())
        return all(values is None or value in values for values, value in asked)

    return [cell for cell in cells if named_by(cell)]


def report(
    outcomes: Iterable[Any], line: Callable[[Any], str], logs: Callable[[], str], file: str | None
) -> int:
    """Tell each outcome, a dataclass with `problem` and `seconds`, as it comes; the exit code."""
    told = []
    for outcome in outcomes:
        end = f"PROBLEM: {outcome.problem}" if outcome.problem else "ok"
        print(f"{line(outcome)}{outcome.seconds:5.1f} s  {end}", flush=True)
        if outcome.problem:
            print(logs(), file=sys.stderr)
        told.append(outcome)
    if file:
        Path(file).write_text(json.dumps([asdict(o) for o in told], indent=2) + "\n")
    bad = sum(bool(outcome.problem) for outcome in told)
    print(f"{len(told)} cells, {bad} problems")
    return 1 if bad else 0
