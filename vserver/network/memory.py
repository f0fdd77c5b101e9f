"""The `Network` port in memory: a real second part for tests, simulation and the demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from common.errors import Reason, Refusal
from common.model.profile import Capability
from common.model.wanted import Forward, WantedNetwork
from vserver.network.fabric import MemoryHost
from vserver.network.port import Ear, Neighbour, Observed, ObservedPort, Port, Sign
from vserver.network.question import question

_CAPABILITIES = frozenset({Capability.ACL, Capability.RATE, Capability.ANTI_SPOOFING})


class MemoryNetwork:
    """Acts on one host of a `Fabric`. The host keeps everything: this object may come and go."""

    name = "memory"

    def __init__(
        self, host: MemoryHost, capabilities: frozenset[Capability] = _CAPABILITIES
    ) -> None:
        self._host = host
        self._capabilities = capabilities

    async def open(self) -> None:
        """A tap without a port is closed here by construction."""

    async def close(self) -> None:
        """Ports stay as they are."""

    async def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    async def observe(self) -> Observed:
        host = self._host
        ports = {
            device: ObservedPort(port, device not in host.broken, host.is_attached(port))
            for device, port in host.ports.items()
        }
        return Observed(ports, dict(host.networks))

    async def disturbed(self) -> bool:
        return bool(self._host.broken)

    def vouches(self, port: Port) -> bool:
        host = self._host
        return host.ports.get(port.device) == port and port.device not in host.broken

    async def apply_network(
        self, wanted: WantedNetwork, known: WantedNetwork | None = None
    ) -> None:
        """The newest word wins: only a forward that is new or changed is written to the bridge."""
        vni, host = wanted.vni, self._host
        there = host.networks.get(vni)
        old = {f.mac: f.vtep_address for f in there.forwards} if there else {}
        new = {f.mac: f.vtep_address for f in wanted.forwards if f.vtep_address != host.vtep}
        for mac, vtep in new.items():
            if old.get(mac) != vtep:
                host.entries[vni, mac] = vtep
        for mac in old.keys() - new.keys():
            if host.entries.get((vni, mac)) == old[mac]:
                del host.entries[vni, mac]
        host.networks[vni] = replace(
            wanted,
            forwards=tuple(Forward(mac, new[mac]) for mac in sorted(new)),
            vteps=tuple(sorted(set(wanted.vteps) - {host.vtep})),
        )

    async def remove_network(self, vni: int) -> None:
        host = self._host
        gone = host.networks.pop(vni, None)
        for forward in gone.forwards if gone else ():
            if host.entries.get((vni, forward.mac)) == forward.vtep_address:
                del host.entries[vni, forward.mac]

    async def apply_port(self, port: Port) -> None:
        missing = port.profile.needs() - self._capabilities
        if missing:
            names = ", ".join(sorted(missing))
            raise Refusal(Reason.NOT_ENFORCEABLE, f"this host's bridge cannot enforce: {names}")
        self._host.put(port)

    async def remove_port(self, device: str) -> None:
        self._host.forget(device)

    @contextmanager
    def listen(self, to: Neighbour) -> Iterator[Ear]:
        if to.vni not in self._host.networks:
            raise Refusal(Reason.NETWORK_FAILED, f"VNI {to.vni} is not here")
        yield _Ear(self._host, to)

    async def purge(self) -> None:
        for device in list(self._host.ports):
            self._host.forget(device)
        for vni in list(self._host.networks):
            await self.remove_network(vni)


class _Ear:
    """Answers take no time here."""

    def __init__(self, host: MemoryHost, to: Neighbour) -> None:
        self._host = host
        self._vni = to.vni
        self._question = question(to)
        self._signs: list[Sign] = []

    def ask(self) -> None:
        host = self._host
        now = host.clock.monotonic()
        self._signs.append(Sign(now, is_answer=False))
        if host.fabric is not None and host.fabric.answers(host.vtep, self._vni, self._question):
            self._signs.append(Sign(now, is_answer=True))

    def heard(self) -> list[Sign]:
        signs, self._signs = self._signs, []
        return signs
