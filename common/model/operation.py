"""A move as a durable record: whoever reads it can go on from it (DESIGN: "A move")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from common.model.budget import Budget
from common.model.disk import Disk

Definition: TypeAlias = bytes  # of a VM, in its hypervisor's words
FENCE = "fence"  # the kind of an operation that is about a vServer, and has no parts


class Phase(StrEnum):
    """What is absent from vcenter.core.movement.TRANSITIONS is invalid."""

    QUEUED = "queued"
    UNDER_WAY = "under-way"
    FENCING = "fencing"
    PREPARING = "preparing"
    COPYING = "copying"
    SWITCHING = "switching"
    SETTLING = "settling"
    RETURNING = "returning"
    MIRRORING = "mirroring"
    SUCCEEDED = "succeeded"
    ABORTING = "aborting"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST_NEEDS_FENCE = "lost-needs-fence"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.LOST_NEEDS_FENCE})


class MoveKind(StrEnum):
    """How a VM is moved: while it runs; while its guest stands still; off, as it was before; shut
    down for it, and started afterwards. STANDBY: it stays where it is, and a copy of its disks is
    kept in step elsewhere, to be started there one day."""

    LIVE = "live"
    SUSPEND = "suspend"
    COLD = "cold"
    RESTART = "restart"
    STANDBY = "standby"

    @property
    def off(self) -> bool:
        """Nothing runs anywhere while the VM changes hosts: what moves is its definition."""
        return self in (MoveKind.COLD, MoveKind.RESTART, MoveKind.STANDBY)

    @property
    def hands_over(self) -> bool:
        """The VM itself changes hosts while it is off."""
        return self in (MoveKind.COLD, MoveKind.RESTART)


class MoveStep(StrEnum):
    """What a host is asked to do for a move, and what it answers to."""

    PREPARE = "prepare"
    COPY = "copy"
    START = "start"
    CLEAN = "clean"
    ABORT = "abort"
    MIRROR = "mirror"


class HostedState(StrEnum):
    """A hypervisor's own word on one VM. ABSENT = it cannot come back by itself. SHUT_OFF, said of
    a live move's source: it is still defined here, and its guest was shut down, not moved. Of a VM
    that is moved while it is off, on either side: its definition is here. HELD, of a live move's
    source: it stands still with its memory, and runs again only when its agent is told to START it.
    """

    ABSENT = "absent"
    RUNNING = "running"
    UNKNOWN = "unknown"
    SHUT_OFF = "shut-off"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class PhaseTime:
    phase: Phase
    entered_ms: int


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished move leaves behind; milliseconds and bytes. `slowed_percent`: of its CPU
    time that the guest was kept from in the end; `suspended`: it stood still for what was left.
    `blackout_ms`: as `observer` saw it, a vServer beside the move; or `blackout_why` not."""

    total_ms: float = 0.0
    downtime_ms: float = 0.0
    switch_ms: float = 0.0
    bytes: int = 0
    iterations: int = 0
    policy_hash_before: str = ""
    policy_hash_after: str = ""
    blackout_ms: float | None = None
    bytes_per_second: float = 0.0
    dirty_bytes_per_second: float = 0.0
    disk_bytes: int = 0
    slowed_percent: int = 0
    suspended: bool = False
    observer: str = ""
    blackout_why: str = ""


class Basis(StrEnum):
    """What a prediction rests on; see `vcenter.core.forecast`."""

    ASSUMED = "assumed"
    MEASURED = "measured"
    ALIKE = "alike"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was expected of a move when it was asked for; as in `Receipt`. `sampled`: bytes that the
    guest wrote in a second, by its hypervisor's sampling before the move; None: not known."""

    total_ms: float
    downtime_ms: float
    bytes_per_second: float
    dirty_bytes_per_second: float
    sampled: float | None = None
    basis: Basis = Basis.ASSUMED
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """`epoch_after` is 0 until the switch; `phases` says when each phase was entered.

    A move of one VM, or an operation with parts: those name it as their `parent`; it has a
    `subject` (TENANT/GROUP, or a vServer) instead of a `vm_id`.

    `acks` names the hosts that have answered in the current phase, where both must. `gated`: the
    destination holds the VM's CPUs until it is told to start it. `held`: the source could take the
    VM back, for it stood still there when the ledger changed. `copy_disks`: as it was asked for;
    `disks`: what that means for this VM.

    Of a standby, and of a VM that is off: `port` is where the destination takes its disks. Of a
    standby: `definition` is what the VM is, in its hypervisor's words.

    Of a move to another domain: `on_behalf` is the caller as whom its vCenter is asked, and `told`
    that it knows how the move has ended.
    """

    operation_id: str
    kind: str
    vm_id: str
    source: str
    destination: str
    phase: Phase
    requested_by: str
    created_ms: int
    epoch_before: int
    epoch_after: int = 0
    cancel_requested: bool = False
    ended_ms: int = 0
    phases: tuple[PhaseTime, ...] = ()
    failure: Failure | None = None
    receipt: Receipt = Receipt()
    acks: tuple[str, ...] = ()
    parent: str = ""
    priority: int = 0
    subject: str = ""
    near: str = ""
    predicted: Prediction | None = None
    move_kind: MoveKind = MoveKind.LIVE
    gated: bool = False
    held: bool = False
    on_behalf: str = ""
    told: bool = False
    copy_disks: bool = False
    disks: tuple[Disk, ...] = ()
    budget: Budget = Budget()
    port: int = 0
    definition: bytes = b""
    revision: int = 0

    @property
    def in_motion(self) -> bool:
        """A move that has had its turn, and has not ended: hosts work on it."""
        still = self.phase in (Phase.QUEUED, Phase.MIRRORING) or self.phase.final
        return bool(self.vm_id) and not still

    @property
    def apart(self) -> bool:
        """A standby that nobody has promoted: the VM is not bound to it, and lives as if it were
        not there."""
        return self.move_kind is MoveKind.STANDBY and self.phase is not Phase.SWITCHING


@dataclass(frozen=True, slots=True)
class Standing:
    """How an active operation stands to the others: why it waits, and when it should end (0: no
    telling). Of one with parts also how many there are, have ended, and have succeeded. Never
    durable: it follows from the table and the time."""

    waits_for: tuple[str, ...] = ()
    expected_end_ms: int = 0
    parts: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What the source's hypervisor said last; never durable. Bytes are of memory and disks, those
    of disks also by themselves. `in_step_ms`: when a standby was last known to lack nothing."""

    bytes_total: int = 0
    bytes_processed: int = 0
    bytes_remaining: int = 0
    bytes_per_second: float = 0.0
    iteration: int = 0
    disk_bytes_total: int = 0
    disk_bytes_processed: int = 0
    in_step_ms: int = 0


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """A host's answer to one step. `epoch` is that of the order which is answered. `gated`, with
    PREPARE: what arrives here runs no instruction before START. `port` with PREPARE and
    `definition` with COPY: see `Operation`."""

    operation_id: str
    vm_id: str
    epoch: int
    step: MoveStep
    ok: bool
    truth: HostedState
    failure: Failure | None = None
    policy_hash: str = ""
    downtime_ms: float = 0.0
    bytes: int = 0
    iterations: int = 0
    bytes_per_second: float = 0.0
    dirty_bytes_per_second: float = 0.0
    gated: bool = False
    disk_bytes: int = 0
    slowed_percent: int = 0
    suspended: bool = False
    port: int = 0
    definition: Definition = b""
