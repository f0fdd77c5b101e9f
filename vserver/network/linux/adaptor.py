"""The `Network` port on Linux: nftables for policy, bridge and VXLAN for reach.

Nothing is remembered here that the kernel does not hold. Taps are closed by default from the moment
that `open` returns, whoever makes them and whenever, until `purge`; this process may come and go.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from common.errors import Reason, Refusal
from common.model.profile import Capability
from common.model.wanted import WantedNetwork
from vserver.network.linux import links, readback, tunnel
from vserver.network.linux.checked import check_device, check_port
from vserver.network.linux.command import Commands
from vserver.network.linux.expectation import Expectation
from vserver.network.linux.links import Link, netlink
from vserver.network.linux.probe import Finding, probe
from vserver.network.linux.readback import Listing
from vserver.network.linux.table import Table
from vserver.network.port import Observed, ObservedPort, Port

_TUNNEL = re.compile(r"vx-([0-9]+)")
_BRIDGE = re.compile(r"br-[0-9]+")


class LinuxNetwork:
    """Acts on the network namespace that it runs in, or on a named one."""

    name = "linux"

    def __init__(
        self,
        vtep: str,
        *,
        netns: str | None = None,
        tap_prefixes: tuple[str, ...] = ("vnet", "vsp"),
        timeout: float = 10.0,
    ) -> None:
        for prefix in tap_prefixes:
            check_device(prefix)
        self._vtep = vtep
        self._netns = netns
        self._commands = Commands(netns, timeout)
        self._table = Table(tap_prefixes)
        self._expectation = Expectation(self._commands, tap_prefixes)
        self._lock = asyncio.Lock()  # one change at a time, so that none builds on a passing state
        self._findings: list[Finding] | None = None

    async def open(self) -> None:
        async with self._lock:
            await self._commands.nft(self._table.base())
            listing = await self._known()
            async with netlink(self._netns) as ip:
                strays = self._strays(await links.links(ip), listing)
            if strays:
                await self._commands.nft([self._table.close(device) for device in strays])

    async def close(self) -> None:
        """Nothing is held between calls."""

    def _strays(self, all_links: list[Link], listing: Listing) -> list[str]:
        """Taps on a VNI's bridge whose names the table does not close by itself."""
        bridges = {link.index for link in all_links if _BRIDGE.fullmatch(link.name)}
        known = listing.devices() | listing.elements.get("closed", {}).keys()
        taps = [link.name for link in all_links if link.kind == "tun" and link.master in bridges]
        return [n for n in taps if n not in known and not n.startswith(self._table.prefixes)]

    async def capabilities(self) -> frozenset[Capability]:
        return frozenset(f.capability for f in await self._found() if f.works and f.capability)

    async def diagnose(self) -> list[tuple[str, bool, str]]:
        """What was probed, whether it works, and what that means: for `vserver doctor`."""
        return [(f.name, f.works, f.explanation) for f in await self._found()]

    async def _found(self) -> list[Finding]:
        if self._findings is None:
            self._findings = await probe(self._commands)
        return self._findings

    async def observe(self) -> Observed:
        async with self._lock:
            listing = await self._known()
            intact = await self._expectation.compare(listing)
            async with netlink(self._netns) as ip:
                all_links = await links.links(ip)
                by_name = {link.name: link for link in all_links}
                ports = {
                    port.device: ObservedPort(port, is_intact, _is_attached(by_name, port))
                    for port, is_intact in intact.items()
                }
                return Observed(ports, await self._networks(ip, by_name))

    async def _known(self) -> Listing:
        """The table, after closing what nobody can vouch for: a port without a readable spec."""
        listing = await readback.read(self._commands, self._table.name)
        unknown = sorted(d for d in listing.devices() if listing.port(d) is None)
        if unknown:
            await self._commit([line for d in unknown for line in self._table.drop(d)])
            listing = await readback.read(self._commands, self._table.name)
        return listing

    async def _networks(self, ip: Any, by_name: dict[str, Link]) -> dict[int, WantedNetwork]:
        networks = {}
        for name, device in by_name.items():
            found = _TUNNEL.fullmatch(name)
            if found and device.is_ours and device.is_up:
                vni = int(found[1])
                bridge = by_name.get(links.bridge_name(vni))
                if bridge and bridge.is_up and device.master == bridge.index:
                    networks[vni] = await tunnel.observed(ip, device, vni)
        return networks

    async def apply_network(self, wanted: WantedNetwork) -> None:
        async with self._lock, netlink(self._netns) as ip:
            bridge = await links.ensure_bridge(ip, self._commands, wanted.vni)
            device = await tunnel.ensure(ip, wanted, self._vtep, bridge)
            await tunnel.point(ip, device, wanted, self._vtep)

    async def remove_network(self, vni: int) -> None:
        async with self._lock, netlink(self._netns) as ip:
            device = await links.find(ip, tunnel.device_name(vni))
            if device is not None:
                await ip.link("del", index=device.index)
            await links.remove_bridge(ip, links.bridge_name(vni))

    async def apply_port(self, port: Port) -> None:
        check_port(port)
        missing = port.profile.needs() - await self.capabilities()
        if missing:
            names = ", ".join(sorted(missing))
            raise Refusal(Reason.NOT_ENFORCEABLE, f"this host's bridge cannot enforce: {names}")
        async with self._lock, netlink(self._netns) as ip:
            await self._plug(ip, port)
            await self._commit([*self._table.base(), *self._table.put(port)])
            tap = await links.find(ip, port.device)
            if tap is not None and tap.master:
                await links.point_to_tap(ip, tap, port.mac, port.is_open)

    async def _plug(self, ip: Any, port: Port) -> None:
        """Onto its bridge; closed on the way, for the old policy was meant for another network."""
        bridge = await links.ensure_bridge(ip, self._commands, port.vni)
        tap = await links.find(ip, port.device)
        if tap is None or tap.master == bridge.index:
            return
        await self._commit([*self._table.base(), *self._table.put(_closed(port))])
        await ip.link("set", index=tap.index, master=bridge.index)

    async def _commit(self, lines: Sequence[str]) -> None:
        """One transaction. Map entries that somebody else wrote are cleared away, and once only."""
        try:
            await self._commands.nft(lines)
        except Refusal:
            listing = await readback.read(self._commands, self._table.name)
            strange = [self._table.forget_element(*at) for at in listing.strange_elements()]
            if not strange:
                raise
            await self._commands.nft([*strange, *lines])

    async def remove_port(self, device: str) -> None:
        check_device(device)
        async with self._lock:
            await self._commit([*self._table.base(), *self._table.drop(device)])
            async with netlink(self._netns) as ip:
                tap = await links.find(ip, device)
                if tap is not None and tap.master:
                    await links.point_to_tap(ip, tap, "", is_open=False)

    async def purge(self) -> None:
        async with self._lock:
            async with netlink(self._netns) as ip:
                for link in await links.links(ip):
                    if link.is_ours:
                        await ip.link("del", index=link.index)
            await self._commands.nft(self._table.delete())


def _closed(port: Port) -> Port:
    return Port(port.device, port.mac, port.ips, port.vni, port.profile, is_open=False)


def _is_attached(by_name: dict[str, Link], port: Port) -> bool:
    tap, bridge = by_name.get(port.device), by_name.get(links.bridge_name(port.vni))
    return bool(tap and bridge and tap.master == bridge.index)
