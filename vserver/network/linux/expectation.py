"""What the kernel should show for a port, learned from the kernel itself.

Text that goes in does not come out the same, and how it comes out varies between versions of nft.
So a port's rules are also put into a scratch table that no hook leads to, read back from there, and
taken away. That needs no fingerprint on disk, and finds more than tampering: after an upgrade that
compiles policy differently, old rules differ too, and are applied anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vserver.network.linux import readback
from vserver.network.linux.command import Commands
from vserver.network.linux.readback import Listing
from vserver.network.linux.table import Table
from vserver.network.port import Port

SCRATCH = "vsignal-scratch"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether taps are closed by default, and whether each port is as it was put in place."""

    has_base: bool
    ports: dict[Port, bool]


class Expectation:
    """Compares the table with what the ports in it should look like; remembers what it learned."""

    def __init__(self, commands: Commands, prefixes: tuple[str, ...]) -> None:
        self._commands = commands
        self._scratch = Table(prefixes, SCRATCH, hooked=False)
        self._learned: dict[Port, dict[str, list[str]]] = {}
        self._base: Listing | None = None

    async def compare(self, listing: Listing) -> Comparison:
        devices = [listing.port(device) for device in sorted(listing.devices())]
        ports = [port for port in devices if port is not None]
        has_base = listing.has_base(await self._learn(listing, ports))
        prefixes = self._scratch.prefixes
        intact = {
            p: has_base and listing.has_port(p, self._learned[_closed(p)], prefixes) for p in ports
        }
        return Comparison(has_base, intact)

    async def _learn(self, listing: Listing, ports: list[Port]) -> Listing:
        """Make sure that every one of these is known, and forget all others."""
        wanted = [_closed(port) for port in ports]
        self._take_over(listing, wanted)
        unknown = [port for port in wanted if port not in self._learned]
        if unknown or self._base is None:
            copy = await self._copy(unknown)
            self._learned |= {port: copy.port_chains(port.device) for port in unknown}
            self._base = copy
        self._learned = {port: self._learned[port] for port in wanted}
        return self._base

    def _take_over(self, listing: Listing, wanted: list[Port]) -> None:
        """What only we have written since is what it should be: no scratch table is needed."""
        for port in wanted:
            if port not in self._learned and self._commands.applied.stands(port):
                self._learned[port] = listing.port_chains(port.device)

    async def _copy(self, ports: Iterable[Port]) -> Listing:
        commands, scratch = self._commands, self._scratch
        lines = [line for port in ports for line in scratch.put(port)]
        try:
            await commands.nft([*scratch.delete(), *scratch.base(), *lines])
            return await readback.read(commands, scratch.name)
        finally:
            await commands.nft(scratch.delete())


def _closed(port: Port) -> Port:
    """Its chains are the same, open or not."""
    return replace(port, is_open=False)
