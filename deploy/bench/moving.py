"""What the benches of moves share: the guest, our stage, timed moves under ping, in turns.

Two labs stand side by side, because our agents close every tap that is not theirs: one with the
product, one with bare bridges and a flooding VXLAN, the best case for the rival, since nothing
there has to be opened, proved or told. The same guest moves back and forth in each.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from common.pb.vsignal.v1 import operations_pb2
from deploy.bench.entry import Entry, compared
from deploy.demo.control import Control, connected, until
from deploy.demo.real import RealStage
from deploy.demo.stage import Actor
from deploy.demo.story import BATCH, PROBE_ADDRESS, WEB, registered, web_profile
from deploy.lab import Nic, Probe
from deploy.lab.names import fresh_run_id

BRIDGE = f"br-{WEB.vni}"
OTHER = Nic(BATCH.mac, BATCH.vni, f"{BATCH.ip}/24", BATCH.network, BRIDGE)
NIC = Nic(WEB.mac, WEB.vni, f"{WEB.ip}/24", WEB.network, BRIDGE)

Move = Callable[[], object]


@dataclass
class Runs:
    """Of one side: how long each move took, and the longest time without an answer to pings."""

    times_ms: list[float] = field(default_factory=list)
    blackouts_ms: list[float] = field(default_factory=list)

    def measure(self, probe: Probe, move: Move) -> None:
        pings = probe.ping_every(WEB.ip, 10.0)
        time.sleep(0.3)
        started = time.perf_counter()
        move()
        self.times_ms.append((time.perf_counter() - started) * 1000)
        time.sleep(0.7)
        self.blackouts_ms.append(pings.stop().longest_gap_ms)

    def beside(self, other: "Runs", name: str, rival: str, **conditions: Any) -> list[Entry]:
        """`NAME-time` and `NAME-blackout`."""
        figures = {
            "time": (self.times_ms, other.times_ms),
            "blackout": (self.blackouts_ms, other.blackouts_ms),
        }
        return [
            compared(f"{name}-{what}", "ms", mine, rival, theirs, pings="10 ms", **conditions)
            for what, (mine, theirs) in figures.items()
        ]


def in_turns(
    rounds: int, rival: tuple[Move, Probe], subject: tuple[Move, Probe]
) -> tuple[Runs, Runs]:
    """The subject's runs, the rival's runs."""
    sides = ((Runs(), *rival), (Runs(), *subject))
    for _, move, probe in sides:
        until("the guest answers", partial(probe.ping, WEB.ip))
        move()  # the first warms caches
    for _ in range(rounds):
        for runs, move, probe in sides:
            runs.measure(probe, move)
    return sides[1][0], sides[0][0]


@contextmanager
def staged(hypervisor: str, mover: Actor = WEB) -> Iterator[tuple[RealStage, Control]]:
    """Ours: ledger, policy, forwarding, receipt and all; two guests run."""
    with ExitStack() as stack:
        stage = RealStage(fresh_run_id(), hypervisor)
        stack.callback(stage.down)
        stage.up()
        control = stack.enter_context(connected(stage.target, stage.operator))
        _populate(stage, control, mover)
        yield stage, control


def _populate(stage: RealStage, control: Control, mover: Actor) -> None:
    until("agents", lambda: len(control.servers()) == 3, timeout=60.0)
    control.declare_tenant(WEB.tenant)
    control.declare_network(WEB.network, WEB.tenant, WEB.vni)
    control.declare_group(WEB.tenant, WEB.group, web_profile())
    for actor in (mover, BATCH):  # the second makes h3, where the pings come from, part of the VNI
        stage.start_guest(actor)
        until(f"{actor.name} is registered", partial(registered, control, actor))
    stage.wait_guests()


def place(control: Control) -> str:
    """The one of h1 and h2 where the guest is not."""
    found = control.vm(WEB.vm_id)
    return "h2" if found and found.record.location.server_id == "h1" else "h1"


def to_and_fro(control: Control) -> operations_pb2.Operation:
    """The guest moves there; what came of it."""
    done = control.move(WEB.vm_id, place(control))
    if done.failure.reason:
        raise RuntimeError(f"the move failed: {done.failure.message}")
    return done


@contextmanager
def product(hypervisor: str = "libvirt") -> Iterator[tuple[Move, Probe]]:
    with staged(hypervisor) as (stage, control):
        yield partial(to_and_fro, control), stage.probe(WEB.vni, PROBE_ADDRESS, host=3)
