"""A data plane in memory: hosts with taps and bridges, joined by tunnels.

It is to `MemoryNetwork` what the kernel is to `LinuxNetwork`: it outlives the adaptor, forwards
frames by the same two tables (bridge and tunnel), and guards each tap with `policy.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from common.clock import Clock
from common.model.profile import Direction
from common.model.wanted import WantedNetwork
from vserver.network.bucket import TokenBucket
from vserver.network.frame import Frame, is_multicast
from vserver.network.policy import verdict
from vserver.network.port import Port
from vserver.network.question import answer


@dataclass(slots=True)
class MemoryHost:
    """What one host's kernel would hold. `entries`: (VNI, MAC) to a tap's name or a remote end."""

    vtep: str
    clock: Clock
    plugs_itself: bool
    taps: dict[str, int] = field(default_factory=dict)  # device to the VNI of its bridge, or 0
    ports: dict[str, Port] = field(default_factory=dict)
    networks: dict[int, WantedNetwork] = field(default_factory=dict)
    entries: dict[tuple[int, str], str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    fabric: Fabric | None = field(default=None, repr=False)
    _buckets: dict[tuple[str, Direction], TokenBucket] = field(default_factory=dict)

    def plug(self, device: str, vni: int = 0) -> None:
        """A tap appears, on a VNI's bridge or on none."""
        self.taps[device] = vni

    def unplug(self, device: str) -> None:
        """The tap is gone, and the bridge's entries with it; the port's policy stays."""
        self.taps.pop(device, None)
        self.entries = {at: to for at, to in self.entries.items() if to != device}

    def tamper(self, device: str) -> None:
        """Somebody empties the port's rules behind the agent's back: it is closed by that."""
        self.broken.add(device)

    def put(self, port: Port) -> None:
        """One step to exactly this port; its buckets are full again."""
        if self.plugs_itself or port.device in self.taps:
            self.taps[port.device] = port.vni
        self.ports[port.device] = port
        self.broken.discard(port.device)
        rates = {
            Direction.INGRESS: port.profile.ingress_rate,
            Direction.EGRESS: port.profile.egress_rate,
        }
        for way, rate in rates.items():
            self._buckets.pop((port.device, way), None)
            if rate is not None:
                self._buckets[port.device, way] = TokenBucket(rate, self.clock.monotonic())
        self.entries = {at: to for at, to in self.entries.items() if to != port.device}
        if port.is_open and port.device in self.taps:
            self.entries[port.vni, port.mac] = port.device

    def is_attached(self, port: Port) -> bool:
        """On its network, where an open port's frames go to it, or on to where the VM is now."""
        on = self.taps.get(port.device) == port.vni
        return on and (not port.is_open or (port.vni, port.mac) in self.entries)

    def forget(self, device: str) -> None:
        """The port is closed by default from here on."""
        self.ports.pop(device, None)
        self.broken.discard(device)
        self.entries = {at: to for at, to in self.entries.items() if to != device}

    def passes(self, device: str, way: Direction, frame: Frame) -> bool:
        """Whether this tap lets the frame through now."""
        port = self.ports.get(device)
        if port is None or device in self.broken or not verdict(port, way, frame):
            return False
        bucket = self._buckets.get((device, way))
        return bucket is None or bucket.takes(frame.size, self.clock.monotonic())

    def deliver(self, vni: int, frame: Frame, arrived_at: str = "") -> set[str]:
        """The taps of this VNI that get the frame."""
        to = (
            None
            if is_multicast(frame.destination_mac)
            else self.entries.get((vni, frame.destination_mac))
        )
        local = [device for device, on in self.taps.items() if on == vni and device != arrived_at]
        heard = [device for device in local if to is None or to == device]
        return {device for device in heard if self.passes(device, Direction.INGRESS, frame)}

    def remotes(self, vni: int, frame: Frame) -> tuple[str, ...]:
        """The tunnel ends that get the frame from here: one, or all if nothing is known."""
        network = self.networks.get(vni)
        if network is None:
            return ()
        if is_multicast(frame.destination_mac):
            return network.vteps
        to = self.entries.get((vni, frame.destination_mac))
        if to is None:
            return network.vteps
        return () if to in self.taps else (to,)


class Fabric:
    """Hosts that reach each other's tunnel ends.

    `plugs_itself`: a tap appears as soon as its port is applied. That suits a hypervisor in memory,
    which makes no taps; give False to say yourself when they appear. `awake`: whether the guest
    behind a tap, on the host with this tunnel end, runs, so that it can answer.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        plugs_itself: bool = True,
        awake: Callable[[str, str], bool] = lambda _vtep, _device: True,
    ) -> None:
        self._clock = clock
        self._plugs_itself = plugs_itself
        self._awake = awake
        self._hosts: dict[str, MemoryHost] = {}

    def host(self, vtep: str) -> MemoryHost:
        """The host behind a tunnel end; made when first asked for."""
        if vtep not in self._hosts:
            made = MemoryHost(vtep, self._clock, self._plugs_itself, fabric=self)
            self._hosts[vtep] = made
        return self._hosts[vtep]

    def send(self, vtep: str, device: str, frame: Frame) -> frozenset[tuple[str, str]]:
        """A VM sends a frame; answers (tunnel end, device) of everybody who hears it."""
        origin = self.host(vtep)
        vni = origin.taps.get(device, 0)
        if not vni or not origin.passes(device, Direction.EGRESS, frame):
            return frozenset()
        heard = {(vtep, tap) for tap in origin.deliver(vni, frame, arrived_at=device)}
        for remote in origin.remotes(vni, frame):
            far = self._hosts.get(remote)
            if far is not None and vni in far.networks:
                heard |= {(remote, tap) for tap in far.deliver(vni, frame)}
        return frozenset(heard)

    def answers(self, vtep: str, vni: int, asked: Frame) -> bool:
        """Whether a guest on another host answers a `question` that comes out of this host's own
        tunnel end."""
        asker, reply = self.host(vtep), answer(asked)
        for remote in asker.remotes(vni, asked):
            far = self._hosts.get(remote)
            if far is None or vni not in far.networks:
                continue
            for tap in far.deliver(vni, asked):
                port = far.ports[tap]
                has_address = not port.ips or asked.destination_ip in port.ips
                theirs = has_address and port.mac == reply.source_mac and self._awake(remote, tap)
                if theirs and far.passes(tap, Direction.EGRESS, reply):
                    return vtep in far.remotes(vni, reply)
        return False
