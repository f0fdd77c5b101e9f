"""What the agent needs of a hypervisor (B2). `libvirt`, `qemu` and `memory` pass one contract
suite.

Failures raise `Refusal(HYPERVISOR_FAILED)` quoting the hypervisor; a call that timed out raises
`TimeoutError`, which means *unknown*: read `hosted()` before acting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.model.budget import Budget
from common.model.disk import Disk
from common.model.operation import HostedState, MoveKind, Progress
from common.model.server import ServerStatus
from common.model.vm import Resources, Vm, VmState
from vserver.hypervisor.standby import Standbys


@dataclass(frozen=True, slots=True)
class Tap:
    """A VM's interface as the host sees it. `device` is "" while the VM is not running."""

    mac: str
    bridge: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class HostedVm:
    """One VM on this host. `vm` carries what its metadata says; unassigned if there is none.

    `state` is INCOMING while memory arrives, and also after it has arrived and nobody has resumed
    the VM (a move's destination between copy and start). `problem` says what is wrong with the
    metadata, for people; such a VM is treated as unassigned. `disks`: its own, sizes left out.
    """

    vm: Vm
    state: VmState
    taps: tuple[Tap, ...] = ()
    problem: str = ""
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Capacity and kind of this host; `hypervisor` is the adaptor's name."""

    hypervisor: str
    version: str
    capacity: Resources
    cpu_model: str
    acceleration: str


@dataclass(frozen=True, slots=True)
class VmUsage:
    """`cpu_percent` of one CPU, since the last call of `usage()`. `dirty_bytes_per_second`: memory
    that the guest wrote in one second, sampled not long ago; None where nobody has looked.
    `disks`: what its files hold and take, in bytes, by path."""

    cpu_percent: float
    memory_used_mib: int
    dirty_bytes_per_second: float | None = None
    disks: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CopyTerms:
    """How a running VM is copied: LIVE, or as SUSPEND: then its guest stands still here from the
    beginning. `gated`: the destination has said that it can `hold` the VM. `disks` go along, into
    the files that `make_way` has made. `budget` is of a LIVE copy."""

    kind: MoveKind = MoveKind.LIVE
    gated: bool = False
    disks: tuple[Disk, ...] = ()
    budget: Budget = Budget()


PLAIN = CopyTerms()


@dataclass(frozen=True, slots=True)
class Luggage:
    """Disks that go along with a VM that is off, to the `port` where its destination takes them.
    `progress` is told of bytes, as in their `used`."""

    disks: tuple[Disk, ...] = ()
    port: int = 0
    progress: Callable[[Progress], None] = lambda _: None

    def told(self, number: int, share: float) -> None:
        """So much of this disk is over there, and all of those before it."""
        total = sum(disk.used for disk in self.disks)
        before = sum(disk.used for disk in self.disks[:number])
        done = before + int(self.disks[number].used * share)
        self.progress(Progress(total, done, total - done, 0.0, 1, total, done))


NO_LUGGAGE = Luggage()


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished copy, in the hypervisor's own figures; rates, of memory, are 0 where it does not
    give them. For `slowed_percent` and `suspended` see `Receipt`."""

    bytes: int
    downtime_ms: float
    iterations: int
    bytes_per_second: float = 0.0
    dirty_bytes_per_second: float = 0.0
    disk_bytes: int = 0
    slowed_percent: int = 0
    suspended: bool = False


def writing(passed: int, memory: int, sent: int, bytes_per_second: float) -> float:
    """How fast a guest wrote during its copy: what of `passed` (bytes of pages looked at, however
    often) was more than its `memory`, over the time that `sent` bytes took."""
    return max(passed - memory, 0) * bytes_per_second / sent if sent else 0.0


class Hypervisor(Protocol):
    @property
    def standbys(self) -> Standbys | None:
        """None: this host keeps none."""
        ...

    @property
    def carries_disks(self) -> bool:
        """Whether this host can `take` disks, and send them with `hand_over`."""
        ...

    async def open(self) -> None:
        """Connect. Afterwards the adaptor reconnects by itself, for as long as it is open."""
        ...

    async def close(self) -> None:
        """Let go of everything; no VM changes."""
        ...

    async def facts(self) -> HostFacts: ...

    async def list(self) -> Sequence[HostedVm]:
        """Every VM that is defined or runs here."""
        ...

    async def get(self, vm_id: str) -> HostedVm | None: ...

    def events(self) -> AsyncIterator[str]:
        """vm_ids that may have changed; "" after a reconnect: list everything again.

        One consumer. Bounded: when the consumer is slow, events merge into "".
        """
        ...

    async def usage(self) -> tuple[ServerStatus, Mapping[str, VmUsage]]: ...

    async def hosted(self, vm_id: str) -> HostedState:
        """The hypervisor's word at this moment, never cached. UNKNOWN if it does not answer.

        ABSENT: not here, or defined but shut off. HELD: see `migrate`. RUNNING: everything else, a
        paused VM and one whose memory has arrived included.
        """
        ...

    async def shut_down(self, vm_id: str) -> bool:
        """Whether the VM is ABSENT here because its guest has shut down, while its definition is
        still here: no copy has taken it away. False also where that cannot be told."""
        ...

    async def migrate(
        self,
        vm_id: str,
        destination_uri: str,
        devices: Mapping[str, str],
        progress: Callable[[Progress], None],
        terms: CopyTerms = CopyTerms(),
    ) -> Copied:
        """Copy a running VM. It stays *paused* at the destination (INCOMING there).

        When this returns, the VM is ABSENT here for good, its definition gone too. `devices` maps
        each MAC to the tap's name at the destination, so that policy is there before the tap is.
        Raises if the copy failed or was aborted, DOWNTIME_NOT_KEPT if its budget wants that: the VM
        then runs on here, with its disks. A disk that was copied stays here (`drop_disks`).

        If it is `gated` this may return earlier, with the VM HELD here: the last of its memory may
        still be travelling, and it runs here only after `resume`.
        """
        ...

    async def last_figures(self, vm_id: str) -> Copied | None:
        """Of a live copy that has left and is over since: what was not known yet when `migrate`
        returned. Waits until it is known, seconds at most; told once. None: there is nothing to
        add."""
        ...

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        """`make_way` for a VM that is off, and whose disks its source writes to the port that is
        returned. Goes on without the agent: asked again, it is the same port while that lasts.
        Nobody starts the VM here before `settle`."""
        ...

    async def hand_over(
        self, vm_id: str, destination_uri: str, luggage: Luggage = NO_LUGGAGE
    ) -> None:
        """Give a VM that is off to the destination, where it is defined and off afterwards, with
        its luggage: nobody starts it here while that is copied, and what has been is durable there.

        When this returns, its definition is gone here (`keeps`); its disks stay (`drop_disks`).
        Raises if that failed, or `abort` came before the disks were over there: then it is still
        here, as it was, and may be there too. Waits for the end, however long that takes.
        """
        ...

    async def settle(self, vm_id: str) -> None:
        """What was handed over is this host's now: nothing is taken for it any more, and what was
        made for it is its own. Nothing to settle is no error."""
        ...

    async def keeps(self, vm_id: str) -> bool:
        """Whether the VM is defined here, on or off. Raises if that cannot be told."""
        ...

    async def ask_off(self, vm_id: str) -> None:
        """Press the VM's power button. What the guest makes of it is its own affair; it may be
        asked again. One that is off is no error."""
        ...

    async def power_on(self, vm_id: str) -> None:
        """Start a VM that is defined here and off. Already on is no error."""
        ...

    async def abort(self, vm_id: str) -> None:
        """Stop a copy under way, of a VM or of its luggage, also one that an agent before us asked
        for: when this returns, none is to come. Nothing to stop is no error."""
        ...

    async def make_way(self, vm_id: str, disks: Sequence[Disk] = ()) -> None:
        """Return when the VM may arrive: what an earlier stay left has been cleared away, and there
        are empty files for the copies of these disks. They are this move's until `resume` (or
        `settle`), and go with `discard`. Refuses where a file is there already, or none may be
        made."""
        ...

    async def drop_disks(self, vm_id: str, disks: Sequence[Disk]) -> None:
        """Remove these files, for the VM lives with copies of them: those that are this host's to
        remove (docs/disks.md). Refuses while the VM is on here. Nothing there is no error."""
        ...

    async def hold(self, vm_id: str) -> bool:
        """Let the VM, which is about to arrive live, run no instruction before `resume`, whatever
        its source's hypervisor agrees on with this one. False: this host has no way to."""
        ...

    def kept(self) -> Collection[str]:
        """The VMs that are kept from running here by `hold` or as HELD, also after any restart."""
        ...

    async def give_up(self, vm_id: str) -> None:
        """No move concerns it here any more, as the ledger has said to the caller: whoever starts
        it here may, unless something of it stands here still."""
        ...

    async def resume(self, vm_id: str) -> None:
        """Run what is INCOMING (arrived, or arriving and held), HELD or PAUSED. Already running is
        no error."""
        ...

    async def discard(self, vm_id: str) -> None:
        """Remove what a move left: an INCOMING copy, what is HELD, or a shut-off definition.

        Refuses a VM that has been RUNNING otherwise. Nothing there is no error. What a good
        `migrate` has left is cleared away without being asked, soon; `make_way` waits for it.
        """
        ...
