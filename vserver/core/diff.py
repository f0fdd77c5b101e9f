"""From what is to what should be, in an order that is safe to stop after any step.

First whatever passes frames that it should not is closed; then networks are laid; then ports come
to them, closed ones before open ones; networks that nobody needs go last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.model.wanted import WantedNetwork
from vserver.network.port import Observed, ObservedPort, Port


@dataclass(frozen=True, slots=True)
class ApplyNetwork:
    network: WantedNetwork


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    vni: int


@dataclass(frozen=True, slots=True)
class ApplyPort:
    port: Port


@dataclass(frozen=True, slots=True)
class RemovePort:
    device: str


Operation = ApplyNetwork | RemoveNetwork | ApplyPort | RemovePort


def diff(
    ports: Mapping[str, Port],
    networks: Mapping[int, WantedNetwork],
    observed: Observed,
    taps: frozenset[str],
) -> list[Operation]:
    """What differs, and only that. `taps`: the devices that VMs have here now."""
    changed = [p for p in ports.values() if not in_force(p, observed.ports.get(p.device), taps)]
    closing = [p for p in changed if not p.is_open and p.vni in observed.networks]
    closed = [p for p in changed if not p.is_open and p.vni not in observed.networks]
    needed = networks.keys() | {p.vni for p in ports.values()}
    return [
        *(RemovePort(device) for device in observed.ports if device not in ports),
        *(ApplyPort(p) for p in closing),
        *(ApplyNetwork(n) for n in networks.values() if not laid(n, observed)),
        *(ApplyPort(p) for p in closed),
        *(ApplyPort(p) for p in changed if p.is_open),
        *(RemoveNetwork(vni) for vni in observed.networks if vni not in needed),
    ]


def in_force(port: Port, observed: ObservedPort | None, taps: frozenset[str]) -> bool:
    """Whether nothing is left to do. A tap that does not exist yet need not be attached."""
    if observed is None or not observed.intact:
        return False
    attached = observed.attached or port.device not in taps
    return attached and same(port, observed.port)


def same(port: Port, other: Port) -> bool:
    """Equal in effect. Profiles are compared before hashes, for hashing costs more."""
    if (port.mac, port.vni, port.is_open) != (other.mac, other.vni, other.is_open):
        return False
    if frozenset(port.ips) != frozenset(other.ips):
        return False
    return port.profile == other.profile or port.policy_hash == other.policy_hash


def laid(network: WantedNetwork, observed: Observed) -> bool:
    """Whether a VNI is as wanted. Order and the network's name mean nothing to a kernel."""
    there = observed.networks.get(network.vni)
    return (
        there is not None
        and frozenset(there.forwards) == frozenset(network.forwards)
        and frozenset(there.vteps) == frozenset(network.vteps)
    )
