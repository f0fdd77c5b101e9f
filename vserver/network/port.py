"""What the agent needs of a host's data plane. `linux` and `memory` pass one contract suite.

Closed is the default: a tap that nobody has opened passes no frame, in either direction, from the
moment it exists (I5). Failures raise `Refusal(NETWORK_FAILED)` and leave the port as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from common.model.profile import Capability, Profile
from common.model.wanted import WantedNetwork


@dataclass(frozen=True, slots=True)
class Port:
    """One tap as it should be. The tap need not exist yet: policy comes first.

    With `is_open` False no frame passes, yet the profile is in force and can be read back.
    """

    device: str
    mac: str
    ips: tuple[str, ...]
    vni: int
    profile: Profile
    is_open: bool

    @property
    def policy_hash(self) -> str:
        return self.profile.digest()


@dataclass(frozen=True, slots=True)
class ObservedPort:
    """What is in force, read back from the kernel.

    `intact` False: somebody changed the rules behind our back, apply again. `attached`: the tap
    exists and is on its VNI's bridge, which knows where an open port's VM is: frames to a MAC that
    no entry names would go to all. A forward to where the VM has moved is such an entry.
    """

    port: Port
    intact: bool
    attached: bool


@dataclass(frozen=True, slots=True)
class Observed:
    ports: Mapping[str, ObservedPort] = field(default_factory=dict)  # by device
    networks: Mapping[int, WantedNetwork] = field(default_factory=dict)  # by VNI, as in force


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A guest elsewhere on the network `vni`, and in whose name it is asked: the MAC of a VM of
    this host, to which all hosts of the network know the way."""

    vni: int
    mac: str
    ip: str  # its own; IPv4 or IPv6, which decides how it is asked
    asker: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A question that went out, or an answer that came in. `at`: seconds, to be compared with those
    of the same ear only."""

    at: float
    is_answer: bool


class Ear(Protocol):
    """Asks a guest whether it is there, to it alone, by ARP or neighbour discovery (`question`):
    whoever has the address answers, whatever its port's profile permits, unless a rule of that
    names the protocol itself, ARP or IPv6."""

    def ask(self) -> None:
        """One question. What cannot be sent now is not asked. Raises `OSError` when it is over."""
        ...

    def heard(self) -> list[Sign]:
        """What has gone out and come in since the last call, in order."""
        ...


class Network(Protocol):
    @property
    def name(self) -> str: ...

    async def open(self) -> None:
        """Close every tap that is not known. What an earlier run has opened stays as it is."""
        ...

    async def close(self) -> None:
        """Let go; rules and devices stay, so that no VM loses protection or service."""
        ...

    async def capabilities(self) -> frozenset[Capability]:
        """Probed on this host, not assumed."""
        ...

    async def observe(self) -> Observed:
        """What is there now, read back, not remembered."""
        ...

    async def disturbed(self) -> bool:
        """Whether somebody else may have changed something since `observe`. Cheap: ask often."""
        ...

    def vouches(self, port: Port) -> bool:
        """Whether the port is in force exactly so, because it was put in force here and nobody,
        ourselves included, has changed any rule of the host since. Cheap. False says nothing."""
        ...

    async def apply_network(
        self, wanted: WantedNetwork, known: WantedNetwork | None = None
    ) -> None:
        """Bridge, tunnel and forwarding entries of one VNI, to exactly this state.

        `known`: what was put in force or read last. Then only what differs from it is written, as
        far as that can be done; what others have changed since is for who reads it back.
        """
        ...

    async def remove_network(self, vni: int) -> None: ...

    async def apply_port(self, port: Port) -> None:
        """One atomic step from whatever was in force to this. Also puts the tap on its bridge."""
        ...

    async def remove_port(self, device: str) -> None:
        """Forget the port: it is closed by default again. Unknown is no error."""
        ...

    def listen(self, to: Neighbour) -> AbstractContextManager[Ear]:
        """Ask a guest on another host over the overlay. Changes nothing on this host, nor in what
        is observed. Raises `Refusal` or `OSError` on entering if that cannot be done."""
        ...

    async def purge(self) -> None:
        """Remove everything that this adaptor ever made on the host (uninstall, tests)."""
        ...
