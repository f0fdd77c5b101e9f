"""What a host should look like, derived from the ledger. Level-triggered: repeating is harmless."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

from common.model.budget import Budget
from common.model.disk import Disk
from common.model.operation import MoveKind, MoveStep
from common.model.profile import Profile
from common.model.vm import Vm


class PortState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"  # as soon as, and only while, the profile is in force


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """What a move wants of this host now. `gated`, with COPY: the destination holds the VM until it
    is told to start it, whatever the hypervisors agree on. `disks`: to make room for, to copy, and,
    with CLEAN, to remove, for they live elsewhere now. `port` and `definition`: see `Operation`."""

    operation_id: str
    step: MoveStep
    peer_server: str
    peer_address: str
    peer_migration_uri: str
    epoch: int
    kind: MoveKind = MoveKind.LIVE
    gated: bool = False
    disks: tuple[Disk, ...] = ()
    budget: Budget = Budget()
    port: int = 0
    definition: bytes = b""

    @property
    def apart(self) -> bool:
        """Of a standby that nobody has promoted: the VM lives as if there were no such order."""
        return self.kind is MoveKind.STANDBY and self.step is not MoveStep.START


@dataclass(frozen=True, slots=True)
class WantedVm:
    """One VM as this host should hold it. `owned`: this host is its owner in the ledger.

    `digest` is of what all this follows from in the ledger; the same digest, the same words.
    """

    vm: Vm
    epoch: int
    owned: bool
    profile: Profile
    profile_hash: str
    ports: PortState
    closed_reason: str = ""
    move: MoveOrder | None = None
    digest: int = field(default=0, compare=False)


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


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """A network in the words that all of its hosts are told, or a part of a big one: `more` are
    still to come. `digest` is the whole network's."""

    network: WantedNetwork
    revision: int
    digest: int
    more: int = 0


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """What became different on a network that had the digest `before`, and has `digest` now."""

    vni: int
    revision: int
    before: int
    digest: int
    forwards: tuple[Forward, ...] = ()
    macs_gone: tuple[str, ...] = ()
    vteps: tuple[str, ...] = ()
    vteps_gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What a host has of an earlier stream, by digest: VMs by vm_id, networks by VNI."""

    vms: tuple[tuple[str, int], ...] = ()
    networks: tuple[tuple[int, int], ...] = ()


def network_digest(forwards: Iterable[tuple[str, str]], vteps: Iterable[str]) -> int:
    """Of forwards (MAC and tunnel end) and tunnel ends, in any order. It finds what was missed; it
    is no protection against whoever wants to deceive."""
    ends = sum(_number(vtep) for vtep in vteps)
    return (ends + sum(_number(f"{mac} {vtep}") for mac, vtep in forwards)) % _MODULUS


def digest_after(before: int, come: int, gone: int) -> int:
    """A network's digest, with those of what has come and of what has gone: a digest is a sum, so
    that a change costs what it changes."""
    return (before + come - gone) % _MODULUS


_MODULUS = 1 << 64


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
