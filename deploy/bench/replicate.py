"""Replication of a guest with its disk, beside `virsh migrate --copy-storage-all` of the same one.

Half of the disk is written. Ours is the whole Replicate: the place nearest to the tenant is picked,
disk and memory are copied by TLS, the ledger switches, the source's file is removed. virsh gets
bare bridges, no encryption, and an empty image that is made at the destination before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import libvirt

from common.pb.vsignal.v1 import operations_pb2, signaling_pb2
from deploy.bench.entry import Entry
from deploy.bench.moving import NIC, OTHER, Move, in_turns, place, staged
from deploy.demo.control import Control
from deploy.demo.story import PROBE_ADDRESS, WEB
from deploy.lab import Guest, GuestSpec, Lab, Probe
from deploy.lab.images import disk_path, image_on, make_image
from deploy.lab.names import fresh_run_id
from deploy.lab.overlay import flood

DISK_MIB = 64
MOVER = replace(WEB, disk=f"{DISK_MIB}M")
_FILL = f"dd if=/dev/urandom of=/dev/vda bs=1M count={DISK_MIB // 2} conv=fsync && echo filled"
_HOW = ("--persistent", "--undefinesource", "--copy-storage-all")


def _fill(guest: Guest) -> None:
    if "filled" not in guest.console(_FILL, timeout=120.0):
        raise RuntimeError("the guest's disk could not be written")


@contextmanager
def _plain() -> Iterator[tuple[Move, Probe]]:
    """virsh's place."""
    with Lab(fresh_run_id(), hosts=3) as lab:
        flood(lab, WEB.vni)
        spec = GuestSpec(WEB.name, (NIC,), uuid=WEB.vm_id, disk=disk_path(WEB.name, "libvirt"))
        make_image(lab.host(1), spec, MOVER.disk)
        at: list[Guest] = [lab.guest(spec, on=1).wait_ready()]
        _fill(at[0])

        def move() -> None:
            here = at[0].host
            to = lab.host(2) if here is lab.host(1) else lab.host(1)
            make_image(to, spec, MOVER.disk)
            at[0] = at[0].migrate(to, *_HOW)
            image_on(here, spec).unlink()

        lab.guest(GuestSpec("batch", (OTHER,)), on=3)  # as many guests as on our side
        yield move, lab.probe("eye", on=3, bridge=NIC.bridge, address=PROBE_ADDRESS)


@contextmanager
def _ours() -> Iterator[tuple[Move, Probe]]:
    with staged("libvirt", MOVER) as (stage, control):
        _fill(stage.guest(MOVER, 1))
        yield partial(_replicate, control), stage.probe(WEB.vni, PROBE_ADDRESS, host=3)


def _replicate(control: Control) -> None:
    near = place(control)
    request = signaling_pb2.ReplicateRequest(vm_id=WEB.vm_id, near=near)
    begun = control.signaling.Replicate(request, timeout=10).operation
    follow = operations_pb2.GetOperationRequest(operation_id=begun.operation_id)
    *_, done = control.operations.Follow(follow, timeout=120)
    if done.phase != operations_pb2.PHASE_SUCCEEDED or done.destination != near:
        raise RuntimeError(f"not replicated to {near}: {done.failure.message}")


def run(vms: int, rounds: int) -> list[Entry]:
    del vms  # one that moves, and one that is watched from
    with _plain() as virsh, _ours() as subject:
        ours, theirs = in_turns(rounds, virsh, subject)
    return ours.beside(
        theirs,
        "replicate",
        "virsh migrate --live --p2p --copy-storage-all, bare bridge and flooding VXLAN",
        libvirt=libvirt.getVersion(),
        guest=f"128 MiB, idle, TCG; disk of {DISK_MIB} MiB, half of it written",
    )
