"""A move as a durable record: whoever reads it can go on from it (DESIGN: "A move")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What is absent from vcenter.core.movement.TRANSITIONS is invalid."""

    PREPARING = "preparing"
    COPYING = "copying"
    SWITCHING = "switching"
    SETTLING = "settling"
    SUCCEEDED = "succeeded"
    ABORTING = "aborting"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST_NEEDS_FENCE = "lost-needs-fence"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.LOST_NEEDS_FENCE})


class MoveStep(StrEnum):
    """What a host is asked to do for a move, and what it answers to."""

    PREPARE = "prepare"
    COPY = "copy"
    START = "start"
    CLEAN = "clean"
    ABORT = "abort"


class HostedState(StrEnum):
    """A hypervisor's own word on one VM. ABSENT = it cannot come back by itself."""

    ABSENT = "absent"
    RUNNING = "running"
    UNKNOWN = "unknown"


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
    """What a finished move leaves behind; milliseconds and bytes."""

    total_ms: float = 0.0
    downtime_ms: float = 0.0
    switch_ms: float = 0.0
    bytes: int = 0
    iterations: int = 0
    policy_hash_before: str = ""
    policy_hash_after: str = ""
    blackout_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """`epoch_after` is 0 until the switch; `phases` says when each phase was entered.

    `acks` names the hosts that have answered in the current phase, where both must.
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
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What the source's hypervisor said last; never durable."""

    bytes_total: int = 0
    bytes_processed: int = 0
    bytes_remaining: int = 0
    bytes_per_second: float = 0.0
    iteration: int = 0


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """A host's answer to one step. `epoch` is that of the order which is answered."""

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
