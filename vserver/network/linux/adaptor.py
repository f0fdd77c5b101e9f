"""The `Network` port on Linux: nftables for policy, bridge and VXLAN for reach.

Nothing is remembered here that the kernel does not hold. Taps are closed by default from the moment
that `open` returns, whoever makes them and whenever, until `purge`; this process may come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import structlog

from common.errors import Reason, Refusal
from common.model.profile import Capability
from common.model.wanted import WantedNetwork
from vserver.network.linux import links, tunnel, view
from vserver.network.linux.checked import check_device, check_port
from vserver.network.linux.command import Commands
from vserver.network.linux.ear import listening
from vserver.network.linux.expectation import Expectation
from vserver.network.linux.generation import generation
from vserver.network.linux.links import netlink
from vserver.network.linux.probe import Finding, probe
from vserver.network.linux.readback import Listing, Reader
from vserver.network.linux.table import Table
from vserver.network.port import Ear, Neighbour, Observed, Port

_log = structlog.get_logger()


# Where a VM's definition attaches it: a bridge that is the same on every host and leads nowhere.
# Once the VM's network is known its tap is moved to the VNI's own bridge, still closed.
INTAKE = "vsignal"


class LinuxNetwork:
    """Acts on the network namespace that it runs in, or on a named one."""

    name = "linux"

    def __init__(
        self,
        vtep: str,
        *,
        netns: str | None = None,
        tap_prefixes: tuple[str, ...] = ("vnet", "vsp"),
        intake: str = INTAKE,
        timeout: float = 10.0,
    ) -> None:
        for prefix in tap_prefixes:
            check_device(prefix)
        self._vtep = vtep
        self._intake = intake
        self._netns = netns
        self._commands = Commands(netns, timeout)
        self._table = Table(tap_prefixes)
        self._reader = Reader(self._commands, self._table.name)
        self._expectation = Expectation(self._commands, tap_prefixes)
        self._lock = asyncio.Lock()  # one change at a time, so that none builds on a passing state
        self._findings: list[Finding] | None = None

    async def open(self) -> None:
        async with self._lock:
            await self._commands.nft(self._table.base())
            listing = await self._known()
            async with netlink(self._netns) as ip:
                await links.ensure_intake(ip, self._commands, self._intake)
                strays = view.strays(await links.links(ip), listing, self._table.prefixes)
            if strays:
                await self._commands.nft([self._table.close(device) for device in strays])

    async def close(self) -> None:
        """Nothing is held between calls."""

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
        """Also mends what closes taps by default, at once: that is nobody's wish to wait for."""
        async with self._lock:
            found = await self._expectation.compare(await self._known())
            if not found.has_base:
                _log.warning("network.base_rules_changed", table=self._table.name)
                await self._commands.nft(self._table.base())
            async with netlink(self._netns) as ip:
                by_name = {link.name: link for link in await links.links(ip)}
                entries = await tunnel.entries(ip)
        return view.observed(found.ports, by_name, entries)

    async def disturbed(self) -> bool:
        """By the kernel's count of nftables transactions: any table's, for a flush names none."""
        now = generation(self._netns)
        return now not in (self._reader.count, self._commands.applied.count)

    def vouches(self, port: Port) -> bool:
        return self._commands.applied.is_in_force(port)

    async def _known(self) -> Listing:
        """The table, after closing what nobody can vouch for: a port without a readable spec."""
        listing = await self._reader.read()
        unknown = sorted(d for d in listing.devices() if listing.port(d) is None)
        if unknown:
            _log.warning("network.unknown_ports_closed", devices=unknown)
            drops = [line for device in unknown for line in self._table.drop(device)]
            await self._commit([*self._table.base(), *drops])
            listing = await self._reader.read()
        return listing

    async def apply_network(
        self, wanted: WantedNetwork, known: WantedNetwork | None = None
    ) -> None:
        async with self._lock, netlink(self._netns) as ip:
            if known is not None and await tunnel.amend(ip, known, wanted, self._vtep):
                return
            bridge = await links.ensure_bridge(ip, self._commands, links.bridge_name(wanted.vni))
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
            tap = await self._plug(ip, port)
            await self._put(port)
            if tap is not None:
                await links.point_to_tap(ip, tap, port.mac, port.is_open)

    async def _put(self, port: Port) -> None:
        """Everything, or only the two map entries where the rest is known to stand."""
        applied, table = self._commands.applied, self._table
        if applied.stands(port):
            await self._commit(table.open(port.device) if port.is_open else table.shut(port.device))
        else:
            is_shut = self._reader.knows_shut(port.device)
            await self._commit([*table.base(), *table.put(port, is_shut=is_shut)])
        applied.note(port)

    async def _plug(self, ip: Any, port: Port) -> int | None:
        """Onto its bridge; closed on the way, for the old policy was meant for another network.
        The tap's index, if there is one."""
        bridge = await links.ensure_bridge(ip, self._commands, links.bridge_name(port.vni))
        tap = await links.find(ip, port.device)
        if tap is None:
            return None
        if tap.master != bridge.index:
            await self._put(replace(port, is_open=False))
            await ip.link("set", index=tap.index, master=bridge.index)
        return tap.index

    async def _commit(self, lines: Sequence[str]) -> None:
        """One transaction. Map entries that somebody else wrote are cleared away, and once only."""
        try:
            await self._commands.nft(lines)
        except Refusal:
            listing = await self._reader.read()
            strange = [self._table.forget_element(*at) for at in listing.strange_elements()]
            if not strange:
                raise
            await self._commands.nft([*strange, *lines])

    async def remove_port(self, device: str) -> None:
        check_device(device)
        async with self._lock:
            self._commands.applied.forget(device)
            await self._commit([*self._table.base(), *self._table.drop(device)])
            async with netlink(self._netns) as ip:
                tap = await links.find(ip, device)
                if tap is not None and tap.master:
                    await links.point_to_tap(ip, tap.index, "", is_open=False)

    def listen(self, to: Neighbour) -> AbstractContextManager[Ear]:
        return listening(to, self._netns)

    async def purge(self) -> None:
        async with self._lock:
            async with netlink(self._netns) as ip:
                for link in await links.links(ip):
                    if link.is_ours:
                        await ip.link("del", index=link.index)
            await self._commands.nft(self._table.delete())
