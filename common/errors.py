"""Refusals: what went wrong, as a reason that a program can act on and a text for a person.

A `Refusal` never changes state. The wire turns it into `google.rpc.Status`; `vctl explain` prints
`Reason.explanation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The gRPC status codes that we use, without importing gRPC into the core."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


class Reason(Enum):
    """Every reason that vsignal gives, with its status and what to do about it."""

    INVALID_FIELD = (Kind.INVALID_ARGUMENT, "A field is malformed; the violations name it.")
    UNKNOWN_VM = (Kind.NOT_FOUND, "No VM has this identity here; `vctl vm list` shows all.")
    UNKNOWN_SERVER = (Kind.NOT_FOUND, "No vServer has this id; its agent has never attached.")
    UNKNOWN_TENANT = (Kind.NOT_FOUND, "Declare it first: `vctl tenant set TENANT`.")
    UNKNOWN_GROUP = (Kind.NOT_FOUND, "Declare it first: `vctl group set TENANT/GROUP`.")
    UNKNOWN_NETWORK = (Kind.NOT_FOUND, "Declare it first: `vctl network set NETWORK`.")
    UNKNOWN_OPERATION = (Kind.NOT_FOUND, "No operation has this id; `vctl op list` shows all.")
    UNKNOWN_PLACE = (Kind.NOT_FOUND, "Name a site, a vServer, or LATITUDE,LONGITUDE.")
    IN_USE = (Kind.FAILED_PRECONDITION, "Something still refers to it; remove that first.")
    VNI_TAKEN = (Kind.ALREADY_EXISTS, "The VNI belongs to another virtual network.")
    POLICY_DIFFERS = (
        Kind.FAILED_PRECONDITION,
        "Its group has another profile in the destination's domain; make them alike, or leave it.",
    )
    CLAIM_HELD = (
        Kind.ALREADY_EXISTS,
        "Another VM holds this MAC or IP in this VNI. Nothing was merged; see `vctl events`.",
    )
    STALE_EPOCH = (Kind.ABORTED, "The VM has changed owner since; look it up and try again.")
    NOT_OWNER = (Kind.FAILED_PRECONDITION, "Another vServer owns the VM.")
    RUNNING_IN_TWO_PLACES = (
        Kind.FAILED_PRECONDITION,
        "The owner says that the VM runs there. Stop one of the two; ports stay closed here.",
    )
    OWNER_SILENT = (
        Kind.UNAVAILABLE,
        "The owner cannot be asked whether it still runs the VM; trying again helps once it can.",
    )
    NOT_YOUR_SERVER = (Kind.PERMISSION_DENIED, "A vServer speaks only for itself.")
    FORBIDDEN = (Kind.PERMISSION_DENIED, "This caller may not do this.")
    UNIDENTIFIED = (Kind.UNAUTHENTICATED, "The call carries no identity that is trusted here.")
    REVOKED = (
        Kind.UNAUTHENTICATED,
        "The certificate was revoked. An administrator invites anew: `vctl cert invite`.",
    )
    TOKEN_REFUSED = (
        Kind.PERMISSION_DENIED,
        "The token is unknown, used or expired; ask for another: `vctl cert invite`.",
    )
    UNKNOWN_CERTIFICATE = (
        Kind.NOT_FOUND,
        "The ledger knows no such certificate: `vctl cert list`; others are revoked by serial.",
    )
    NO_CA = (
        Kind.FAILED_PRECONDITION,
        "This vCenter keeps no CA (the table [ca] of vcenter.toml); ask who keeps it.",
    )
    NOT_ENFORCEABLE = (
        Kind.FAILED_PRECONDITION,
        "A host cannot enforce this profile: `vserver doctor` there says what it can.",
    )
    SAME_SERVER = (Kind.INVALID_ARGUMENT, "The destination is the source.")
    SERVER_SILENT = (Kind.FAILED_PRECONDITION, "The vServer's agent is not attached.")
    NO_CAPACITY = (Kind.FAILED_PRECONDITION, "The vServer's memory or CPUs do not suffice.")
    INCOMPATIBLE_HOST = (Kind.FAILED_PRECONDITION, "Hypervisor or CPU differ too much.")
    CORDONED = (
        Kind.FAILED_PRECONDITION,
        "The vServer takes no VMs until it is uncordoned: `vctl server uncordon`.",
    )
    ANTI_AFFINITY = (
        Kind.FAILED_PRECONDITION,
        "Another member of the VM's group is there, or on its way; they are kept apart.",
    )
    NOTHING_TO_MOVE = (Kind.FAILED_PRECONDITION, "There is no VM that would have to move.")
    SOME_FAILED = (Kind.ABORTED, "Parts of the operation failed: `vctl op list --parent` says why.")
    NO_DESTINATION = (Kind.FAILED_PRECONDITION, "No vServer fits; the objections say why not.")
    NOT_RUNNING = (Kind.FAILED_PRECONDITION, "The VM does not run; this move needs it running.")
    NOT_SHUT_OFF = (Kind.FAILED_PRECONDITION, "The VM is on; a cold move needs it shut off.")
    DISKS_STAY = (
        Kind.FAILED_PRECONDITION,
        "Its disks cannot be copied; the message says why. On shared storage they need not be.",
    )
    DOWNTIME_NOT_KEPT = (
        Kind.ABORTED,
        "Its guest writes too much to be switched within its budget; it stays. Give it a longer"
        " `--downtime`, or say `--if-over slow` or `suspend`.",
    )
    COPY_FAILED = (Kind.ABORTED, "The copy failed; the VM is where it was, as it was.")
    WOULD_NOT_STOP = (
        Kind.ABORTED,
        "Its guest was asked to shut down and did not, so nothing was moved: move it another way.",
    )
    WOULD_NOT_START = (
        Kind.ABORTED,
        "It was shut down for its move and would not start again: it is off, on its owner.",
    )
    UNASSIGNED = (Kind.FAILED_PRECONDITION, "Assign tenant and networks: `vctl vm assign`.")
    ALREADY_MOVING = (Kind.FAILED_PRECONDITION, "A move is under way: `vctl op list`.")
    TOO_LATE_TO_CANCEL = (Kind.FAILED_PRECONDITION, "The switch has begun; it will finish.")
    ALREADY_DONE = (Kind.FAILED_PRECONDITION, "The operation has ended.")
    IDENTITY_FROZEN = (
        Kind.FAILED_PRECONDITION,
        "It changed hands too often; see `vctl alert list -o wide`, then `vctl vm thaw KEY`.",
    )
    IN_TWO_DOMAINS = (
        Kind.FAILED_PRECONDITION,
        "Another domain holds the same identity: `vctl vm show KEY`. Remove one of the two, give it"
        " another address (`vctl vm assign`), or `vctl vm thaw KEY`.",
    )
    NOT_FROZEN = (Kind.FAILED_PRECONDITION, "There is nothing to thaw.")
    NEEDS_FENCE = (Kind.FAILED_PRECONDITION, "Nobody can say who runs the VM; a person must.")
    NO_STANDBY = (
        Kind.FAILED_PRECONDITION,
        "The VM has no standby that is in step: `vctl op list --vm KEY` says how far it is.",
    )
    STANDBY_LOST = (
        Kind.ABORTED,
        "The VM has no standby any more; it runs on. Make another: `vctl vm replicate --standby`.",
    )
    SERVER_ATTACHED = (
        Kind.FAILED_PRECONDITION,
        "The vServer's agent answers, so it can be asked: no fence is needed. `vctl server drain`.",
    )
    NO_FENCE = (
        Kind.FAILED_PRECONDITION,
        "No fence device is configured for it: see [fence] in vcenter.toml, or give your `--word`.",
    )
    FENCE_FAILED = (
        Kind.FAILED_PRECONDITION,
        "The fence device did not say that the host is off. Unknown is not fenced: try again.",
    )
    FENCED_BY_WORD = (Kind.FAILED_PRECONDITION, "An operator said that the vServer is off.")
    NOT_LOST = (
        Kind.FAILED_PRECONDITION,
        "The VM's owner is attached and has it: move it, or deregister it there.",
    )
    HISTORY_NOT_KEPT = (
        Kind.FAILED_PRECONDITION,
        "It was too long ago: `history_hours` in vcenter.toml says for how long history is kept.",
    )
    UNKNOWN_DOMAIN = (Kind.NOT_FOUND, "No way leads to this domain: `vctl domain tree`.")
    DOMAIN_LOOP = (
        Kind.FAILED_PRECONDITION,
        "The call has come by here already: two vCenters take each other for the way to a domain.",
    )
    DOMAIN_UNREACHABLE = (
        Kind.UNAVAILABLE,
        "Its vCenter did not answer; a change may have been made all the same: look, then repeat.",
    )
    NOT_PASSED_ON = (
        Kind.UNIMPLEMENTED,
        "This call is not passed on to other domains: ask that domain's vCenter itself.",
    )
    TOO_LARGE = (Kind.INVALID_ARGUMENT, "Over a size limit; the message names it.")
    OVERLOADED = (Kind.RESOURCE_EXHAUSTED, "The queue is full; try again after the delay.")
    STORE_FAILED = (Kind.UNAVAILABLE, "The store took no write; lookups are still answered.")
    SHUTTING_DOWN = (Kind.UNAVAILABLE, "The vCenter is stopping; try again.")
    UNIMPLEMENTED = (Kind.UNIMPLEMENTED, "Part of the contract, not built yet.")
    HYPERVISOR_FAILED = (Kind.FAILED_PRECONDITION, "The hypervisor refused; its words are quoted.")
    NETWORK_FAILED = (Kind.FAILED_PRECONDITION, "The data plane refused; its words are quoted.")
    CANCELLED_BY_USER = (Kind.ABORTED, "The move was cancelled before the switch.")
    SESSION_LOST = (Kind.ABORTED, "The agent went away in the middle of a step.")

    def __init__(self, kind: Kind, explanation: str) -> None:
        self.kind = kind
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: its path in the message (`vm.interfaces[0].mac`) and why."""

    field: str
    description: str


class Refusal(Exception):
    """A command that was not carried out. Nothing has changed."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        evidence: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = violations
        self.evidence = dict(evidence or {})
        self.retry_after = retry_after


def invalid(violations: list[Violation]) -> Refusal:
    """The refusal for malformed fields, all of them at once."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return Refusal(Reason.INVALID_FIELD, text, violations=tuple(violations))
