"""kill -9 of each of our daemons while the disk of a VM that is off travels, and right after.

A cell is a daemon and a moment. After the kill the daemon is started again; when the operation has
ended, virsh, the process table and the disk itself are asked: exactly one host has the VM defined,
the ledger says the same, the disk there has every byte that it began with, and neither a disk nor
anybody who takes one is left on the other host.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common.pb.vsignal.v1 import operations_pb2 as op
from common.pb.vsignal.v1 import signaling_pb2, types_pb2
from deploy.faults.crash_rig import NETWORK, TENANT, VNI, Rig, rig
from deploy.faults.limping import Limping, receivers
from deploy.faults.matrix import arguments, facts, named, report, wanted
from deploy.faults.until import Gone, until
from deploy.lab import Guest, GuestSpec, Host, Nic, shell
from deploy.lab.images import disk_path, image_on

VICTIMS = ("vcenter", "source-agent", "destination-agent")
MOMENTS = ("copying", "switching")  # in the middle of it; as soon as the ledger has a new owner
MIB = 128  # of the disk
_OFF = types_pb2.VM_STATE_SHUT_OFF
_PAST = (op.PHASE_SWITCHING, op.PHASE_SETTLING)


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
    at: str
    seconds: float
    problem: str = ""


def cells() -> list[Cell]:
    return [Cell(victim, moment) for moment in MOMENTS for victim in VICTIMS]


def has_come(moment: str, seen: op.Operation) -> bool:
    """A moment that never came has come with the move's end."""
    if moment == "switching":
        return seen.done or seen.phase in _PAST
    return seen.done or (
        seen.phase == op.PHASE_COPYING and seen.progress.disk_bytes_processed >= 1 << 20
    )


class Matrix:
    """Cells one after the other, with one VM that goes there and back; a new one after trouble."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._made = 0
        self._guest: Guest | None = None
        self._was = rig.lab.names.work / "disk.raw"  # what its disk began with

    def run(self, cell: Cell) -> Outcome:
        started = time.monotonic()
        guest = self._guest or self._fresh()
        source, other = guest.host, self._rig.lab.host(3 - guest.host.number)
        with Limping(other) as disks:
            if cell.moment != "copying":
                disks.freed()
            move = self._relocate(guest, other)
            seen = self._await(cell, move)
            disks.held()
            self._kill(cell, source, other)
        problem, done = self._judge(guest, move)
        (at, *_) = [*self._defined(guest), "nowhere"]
        self._guest = None if problem else guest.on(self._rig.lab.host(int(at[1:])))
        took = round(time.monotonic() - started, 1)
        return Outcome(cell.victim, cell.moment, seen, named(done), at, took, problem)

    def _fresh(self) -> Guest:
        """Off, on the first host, with a disk of its own that is full."""
        self._made += 1
        name = f"cold{self._made}"
        nic = Nic(f"52:54:00:40:00:{self._made:02x}", VNI, f"10.1.0.{self._made}/24", NETWORK)
        spec = GuestSpec(name, (nic,), tenant=TENANT, disk=disk_path(name, "libvirt"))
        guest = Guest(spec, self._rig.lab.host(1))
        image = image_on(guest.host, spec)
        image.parent.mkdir(parents=True, exist_ok=True)
        self._was.write_bytes(os.urandom(MIB << 20))
        shell.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(self._was), str(image)])
        guest.define()
        return guest

    def _relocate(self, guest: Guest, to: Host) -> str:
        """As soon as everybody is there, and knows the VM and what is on its disk."""
        self._rig.wait_attached()
        request = signaling_pb2.RelocateRequest(
            vm_id=guest.spec.uuid, destination=f"h{to.number}", copy_disks=True, plan_only=True
        )
        signaling = self._rig.control.signaling

        def planned() -> bool:
            moves = signaling.Relocate(request, timeout=10).moves
            return bool(moves) and moves[0].predicted.disk_bytes >= MIB << 20

        until("the VM is off, and its disk is known", lambda: self._is_off(guest) and planned())
        request.plan_only = False
        return signaling.Relocate(request, timeout=10).operation.operation_id

    def _is_off(self, guest: Guest) -> bool:
        return self._rig.owner(guest) == (f"h{guest.host.number}", _OFF)

    def _await(self, cell: Cell, move: str) -> str:
        last = op.Operation()
        for last in self._rig.follow(move):
            if has_come(cell.moment, last):
                break
        return named(last)

    def _kill(self, cell: Cell, source: Host, other: Host) -> None:
        agents = {"source-agent": source, "destination-agent": other}
        host = agents.get(cell.victim)
        victim = self._rig.agents[host.number - 1] if host is not None else self._rig.center
        victim.kill9()
        victim.start()

    def _judge(self, guest: Guest, move: str) -> tuple[str, op.Operation]:
        done = op.Operation()
        try:
            until("the move has ended", lambda: self._rig.get(move).done, 90)
            done = self._rig.get(move)
            until("the ledger and the hosts agree", lambda: self._agree(guest), 40)
        except Gone as error:
            seen = facts(self._rig, guest, lambda: self._rig.owner(guest))
            return f"{error}; defined on {self._defined(guest)}; {seen}", done
        image = self._image(guest, self._defined(guest)[0])
        said = shell.run(["qemu-img", "compare", str(self._was), str(image)], check=False)
        return ("" if "identical" in said else f"another disk: {said}"), done

    def _agree(self, guest: Guest) -> bool:
        """One host has it, and the ledger says so; the other has nothing of it any more."""
        defined = self._defined(guest)
        if len(defined) != 1 or self._rig.owner(guest) != (defined[0], _OFF):
            return False
        hosts = self._rig.lab.hosts
        if any(receivers(host) for host in hosts):
            return False
        left = [h for h in hosts if f"h{h.number}" != defined[0]]
        return not any(image_on(host, guest.spec).exists() for host in left)

    def _defined(self, guest: Guest) -> list[str]:
        return [
            f"h{host.number}"
            for host in self._rig.lab.hosts
            if guest.spec.uuid in host.virsh("list", "--all", "--uuid").split()
        ]

    def _image(self, guest: Guest, at: str) -> Path:
        return image_on(self._rig.lab.host(int(at[1:])), guest.spec)


def _line(outcome: Outcome) -> str:
    text = f"{outcome.victim:20}{outcome.moment:12}killed in {outcome.killed_in:12}"
    return f"{text}ended {outcome.ended:18}it is on {outcome.at:8}"


def main() -> int:
    given = arguments("cold-matrix", __doc__, victim=VICTIMS, moment=MOMENTS).parse_args()
    with rig() as made:
        outcomes = map(Matrix(made).run, wanted(cells(), given))
        return report(outcomes, _line, made.logs, given.json)


if __name__ == "__main__":
    sys.exit(main())
