"""Relocation on libvirt, beside `virsh migrate --live --p2p` of the same guest (see moving.py)."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from deploy.bench.entry import Entry
from deploy.bench.moving import BRIDGE, NIC, OTHER, Move, in_turns, product
from deploy.demo.story import PROBE_ADDRESS, WEB
from deploy.lab import Guest, GuestSpec, Lab, Probe
from deploy.lab.names import fresh_run_id
from deploy.lab.overlay import flood


@contextmanager
def _plain() -> Iterator[tuple[Move, Probe]]:
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


def run(vms: int, rounds: int) -> list[Entry]:
    del vms  # one that moves, and one that is watched from
    with _plain() as virsh, product() as subject:
        ours, theirs = in_turns(rounds, virsh, subject)
    return ours.beside(
        theirs,
        "relocation",
        "virsh migrate --live --p2p, bare bridge and flooding VXLAN",
        libvirt=libvirt.getVersion(),
        guest="128 MiB, idle, TCG",
    )
