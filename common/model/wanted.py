"""What a host should look like, derived from the ledger. Level-triggered: repeating is harmless."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from common.model.operation import MoveStep
from common.model.profile import Profile
from common.model.vm import Vm


class PortState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"  # as soon as, and only while, the profile is in force


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """What a move wants of this host now."""

    operation_id: str
    step: MoveStep
    peer_server: str
    peer_address: str
    peer_migration_uri: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WantedVm:
    """One VM as this host should hold it. `owned`: this host is its owner in the ledger."""

    vm: Vm
    epoch: int
    owned: bool
    profile: Profile
    profile_hash: str
    ports: PortState
    closed_reason: str = ""
    move: MoveOrder | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Static forwarding entry: this MAC is behind that tunnel end (RFC 7348, section 4.2)."""

    mac: str
    vtep_address: str


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """One VNI that this host takes part in. `vteps`: where frames for all go (head-end)."""

    vni: int
    network: str
    forwards: tuple[Forward, ...]
    vteps: tuple[str, ...]
