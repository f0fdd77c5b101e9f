"""Relocation on libvirt, beside `virsh migrate --live --p2p` of the same guest.

Two labs stand side by side, because our agents close every tap that is not theirs: one with the
product, one with bare bridges and a flooding VXLAN, the best case for virsh, since nothing there
has to be opened, proved or told. The same guest moves back and forth in each, in turns.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import libvirt

from common.pb.vsignal.v1 import operations_pb2
from deploy.bench.entry import Entry, compared
from deploy.demo.control import Control, connected, until
from deploy.demo.real import RealStage
from deploy.demo.story import BATCH, PROBE_ADDRESS, WEB, registered, web_profile
from deploy.lab import Guest, GuestSpec, Lab, Nic, Probe
from deploy.lab.names import fresh_run_id
from deploy.lab.overlay import flood

BRIDGE = f"br-{WEB.vni}"
OTHER = Nic(BATCH.mac, BATCH.vni, f"{BATCH.ip}/24", BATCH.network, BRIDGE)
NIC = Nic(WEB.mac, WEB.vni, f"{WEB.ip}/24", WEB.network, BRIDGE)


@dataclass
class Runs:
    times_ms: list[float] = field(default_factory=list)
    blackouts_ms: list[float] = field(default_factory=list)

    def measure(self, probe: Probe, move: Callable[[], object]) -> None:
        pings = probe.ping_every(WEB.ip, 10.0)
        time.sleep(0.3)
        started = time.perf_counter()
        move()
        self.times_ms.append((time.perf_counter() - started) * 1000)
        time.sleep(0.7)
        self.blackouts_ms.append(pings.stop().longest_gap_ms)


@contextmanager
def _plain() -> Iterator[tuple[Callable[[], None], Probe]]:
    """virsh's place."""
    with Lab(fresh_run_id(), hosts=3) as lab:
        flood(lab, WEB.vni)
        spec = GuestSpec(WEB.name, (NIC,), uuid=WEB.vm_id)
        at: list[Guest] = [lab.guest(spec, on=1).wait_ready()]

        def move() -> None:
            to = lab.host(2) if at[0].host is lab.host(1) else lab.host(1)
            at[0] = at[0].migrate(to, "--persistent", "--undefinesource")

        lab.guest(GuestSpec("batch", (OTHER,)), on=3)  # as many guests as on our side
        yield move, lab.probe("eye", on=3, bridge=BRIDGE, address=PROBE_ADDRESS)


@contextmanager
def staged(hypervisor: str) -> Iterator[tuple[RealStage, Control]]:
    """Ours: ledger, policy, forwarding, receipt and all; two guests run."""
    with ExitStack() as stack:
        stage = RealStage(fresh_run_id(), hypervisor)
        stack.callback(stage.down)
        stage.up()
        control = stack.enter_context(connected(stage.target, stage.operator))
        _populate(stage, control)
        yield stage, control


def to_and_fro(control: Control) -> operations_pb2.Operation:
    """The guest moves to the one of h1 and h2 where it is not; what came of it."""
    found = control.vm(WEB.vm_id)
    here = found.record.location.server_id if found else ""
    done = control.move(WEB.vm_id, "h2" if here == "h1" else "h1")
    if done.failure.reason:
        raise RuntimeError(f"the move failed: {done.failure.message}")
    return done


@contextmanager
def product(hypervisor: str = "libvirt") -> Iterator[tuple[Callable[[], object], Probe]]:
    with staged(hypervisor) as (stage, control):
        yield partial(to_and_fro, control), stage.probe(WEB.vni, PROBE_ADDRESS, host=3)


def _populate(stage: RealStage, control: Control) -> None:
    until("agents", lambda: len(control.servers()) == 3)
    control.declare_tenant(WEB.tenant)
    control.declare_network(WEB.network, WEB.tenant, WEB.vni)
    control.declare_group(WEB.tenant, WEB.group, web_profile())
    for actor in (WEB, BATCH):  # the second makes h3, where the pings come from, part of the VNI
        stage.start_guest(actor)
        until(f"{actor.name} is registered", partial(registered, control, actor))
    stage.wait_guests()


def run(vms: int, rounds: int) -> list[Entry]:
    del vms  # one that moves, and one that is watched from
    ours, virsh = Runs(), Runs()
    with _plain() as (virsh_move, virsh_probe), product() as (our_move, our_probe):
        for probe, move in ((virsh_probe, virsh_move), (our_probe, our_move)):
            until("the guest answers", partial(probe.ping, WEB.ip))
            move()  # the first warms caches on both sides
        for _ in range(rounds):
            virsh.measure(virsh_probe, virsh_move)
            ours.measure(our_probe, our_move)
    conditions = {"libvirt": libvirt.getVersion(), "guest": "128 MiB, idle, TCG", "pings": "10 ms"}
    rival = "virsh migrate --live --p2p, bare bridge and flooding VXLAN"
    return [
        compared("relocation-time", "ms", ours.times_ms, rival, virsh.times_ms, **conditions),
        compared(
            "relocation-blackout", "ms", ours.blackouts_ms, rival, virsh.blackouts_ms, **conditions
        ),
    ]
