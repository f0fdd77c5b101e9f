"""What was expected of moves of real guests, against what came of them.

A guest moves to and fro, idle at first, then while it writes memory as fast as it can. The first
move after it has begun to write is told apart: nothing like it had been measured until then.
"""

from dataclasses import dataclass, field
from functools import partial

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from deploy.bench.entry import Entry, compared
from deploy.bench.moving import staged, to_and_fro
from deploy.demo.control import Control, stood_still, until
from deploy.demo.real import RealStage
from deploy.demo.story import WEB

_WRITES = 4 << 20  # bytes a second, and more than that
_WRITER = "(head -c 16000000 /dev/urandom >/tmp/a; while :; do cat /tmp/a >/tmp/b; done) &"


@dataclass
class Seen:
    """Expected and happened, move by move."""

    name: str
    times: list[tuple[float, float]] = field(default_factory=list)
    downtimes: list[tuple[float, float]] = field(default_factory=list)

    def add(self, done: operations_pb2.Operation) -> None:
        self.times.append((done.predicted.total_ms, done.receipt.total_ms))
        self.downtimes.append((done.predicted.downtime_ms, done.receipt.downtime_ms))

    def entries(self) -> list[Entry]:
        return [
            _entry(f"{self.name}-time", self.times),
            _entry(f"{self.name}-downtime", self.downtimes),
        ]


def _entry(name: str, pairs: list[tuple[float, float]]) -> Entry:
    expected, happened = zip(*pairs, strict=True)
    factors = [max(e / h, h / e) for e, h in pairs]
    worst = round(max(factors), 2)
    return compared(name, "ms", happened, "predicted", expected, worst_factor=worst, guest="TCG")


def _sampled(control: Control) -> float | None:
    """What a plan made now would go by, in bytes a second."""
    request = signaling_pb2.RelocateRequest(vm_id=WEB.vm_id, plan_only=True)
    [move] = control.signaling.Relocate(request, timeout=10).moves
    known = move.predicted.HasField("sampled_bytes_per_second")
    return move.predicted.sampled_bytes_per_second if known else None


def _is_known(control: Control, busy: bool) -> bool:
    sampled = _sampled(control)
    return sampled is not None and (sampled > _WRITES) is busy


def run(vms: int, rounds: int) -> list[Entry]:
    del vms
    return [
        entry
        for hypervisor in ("libvirt", "qemu")
        for seen in _on(hypervisor, rounds)
        for entry in seen.entries()
    ]


def _on(hypervisor: str, rounds: int) -> list[Seen]:
    name = f"prediction-{hypervisor}"
    idle, first, busy = Seen(f"{name}-idle"), Seen(f"{name}-busy-first"), Seen(f"{name}-busy")
    with staged(hypervisor) as (stage, control):
        for _ in range(2):  # warms caches, and measures each way once
            to_and_fro(control)
        for _ in range(rounds):
            _measure(control, idle, writing=False)
        _write(stage, control)
        _measure(control, first, writing=True)
        for _ in range(rounds):
            _measure(control, busy, writing=True)
    return [idle, first, busy]


def _write(stage: RealStage, control: Control) -> None:
    found = control.vm(WEB.vm_id)
    here = found.record.location.server_id if found else ""
    stage.guest(WEB, int(here.removeprefix("h"))).console(f"{_WRITER} true")


def _measure(control: Control, seen: Seen, *, writing: bool) -> None:
    until("a sample of its memory", partial(_is_known, control, writing), timeout=60.0)
    seen.add(control.told(to_and_fro(control), stood_still))
