"""Draining a host of eight guests, two at a time, beside a loop of `virsh migrate` over as many.

Both spread their guests over the two other hosts. Ours is `vctl server drain`: planned, queued,
with policy, ledger and receipts; the rival's hosts have bare bridges and no agents.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import UUID

from common.pb.vsignal.v1 import inventory_pb2, operations_pb2, signaling_pb2
from deploy.bench.entry import Entry, compared
from deploy.demo.control import Control, connected, until
from deploy.demo.real import RealStage
from deploy.demo.stage import Actor
from deploy.demo.story import WEB, registered, web_profile
from deploy.lab import Guest, GuestSpec, Lab, Nic
from deploy.lab.names import fresh_run_id
from deploy.lab.overlay import flood

GUESTS = 8
BRIDGE = f"br-{WEB.vni}"
_PATIENCE_S = 300


def _actor(number: int) -> Actor:
    return Actor(
        name=f"d{number}",
        vm_id=str(UUID(int=(4 << 76) | (8 << 60) | number)),
        mac=f"52:54:00:aa:01:{number:02x}",
        ip=f"10.1.0.{100 + number}",
        tenant=WEB.tenant,
        network=WEB.network,
        vni=WEB.vni,
        host=1,
        group=WEB.group,
    )


ACTORS = [_actor(number) for number in range(1, GUESTS + 1)]


@contextmanager
def _ours() -> Iterator[Control]:
    with ExitStack() as stack:
        stage = RealStage(fresh_run_id())
        stack.callback(stage.down)
        stage.up()
        control = stack.enter_context(connected(stage.target, stage.operator))
        until("agents", lambda: len(control.servers()) == 3, timeout=60.0)
        control.declare_tenant(WEB.tenant)
        control.declare_network(WEB.network, WEB.tenant, WEB.vni)
        control.declare_group(WEB.tenant, WEB.group, web_profile())
        for actor in ACTORS:
            stage.start_guest(actor)
        stage.wait_guests()
        for actor in ACTORS:
            until(f"{actor.name} is registered", partial(registered, control, actor))
        yield control


def _relocated(control: Control, request: signaling_pb2.RelocateRequest) -> float:
    """Seconds until every VM of it has moved."""
    started = time.perf_counter()
    begun = control.signaling.Relocate(request, timeout=10).operation
    follow = operations_pb2.GetOperationRequest(operation_id=begun.operation_id)
    *_, done = control.operations.Follow(follow, timeout=_PATIENCE_S)
    if done.phase != operations_pb2.PHASE_SUCCEEDED:
        raise RuntimeError(f"the drain failed: {done.failure.message}")
    return time.perf_counter() - started


def _drain(control: Control) -> float:
    seconds = _relocated(control, signaling_pb2.RelocateRequest(server_id="h1"))
    left = [actor.name for actor in ACTORS if _is_on(control, actor, "h1")]
    if left:
        raise RuntimeError(f"still on h1: {left}")
    request = inventory_pb2.CordonServerRequest(server_id="h1", cordoned=False)
    control.inventory.CordonServer(request, timeout=10)
    group = signaling_pb2.RelocateRequest.GroupSubject(tenant=WEB.tenant, group=WEB.group)
    _relocated(control, signaling_pb2.RelocateRequest(group=group, destination="h1"))
    return seconds


def _is_on(control: Control, actor: Actor, server_id: str) -> bool:
    found = control.vm(actor.vm_id)
    return found is not None and found.record.location.server_id == server_id


@contextmanager
def _plain() -> Iterator[tuple[Lab, list[Guest]]]:
    with Lab(fresh_run_id(), hosts=3) as lab:
        flood(lab, WEB.vni)
        guests = []
        for actor in ACTORS:
            nic = Nic(actor.mac, actor.vni, f"{actor.ip}/24", actor.network, BRIDGE)
            guests.append(lab.guest(GuestSpec(actor.name, (nic,), uuid=actor.vm_id), on=1))
        for guest in guests:
            guest.wait_ready()
        yield lab, guests


def _loop(lab: Lab, guests: list[Guest]) -> float:
    """One after the other, as the shell's loop does."""
    how = ("--persistent", "--undefinesource")
    started = time.perf_counter()
    away = [guest.migrate(lab.host(2 + n % 2), *how) for n, guest in enumerate(guests)]
    seconds = time.perf_counter() - started
    for guest in away:
        guest.migrate(lab.host(1), *how)
    return seconds


def run(vms: int, rounds: int) -> list[Entry]:
    """One side's hosts at a time: sixteen guests at once would measure the machine."""
    del vms
    with _ours() as control:
        ours = [_drain(control) for _ in range(rounds)]
    with _plain() as (lab, guests):
        theirs = [_loop(lab, guests) for _ in range(rounds)]
    rival = "a loop of virsh migrate --live --p2p, one by one"
    return [compared("drain-time", "s", ours, rival, theirs, guests=GUESTS, at_a_time=2)]
