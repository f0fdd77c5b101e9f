"""What is done with a VM that the gate has held, by libvirt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import libvirt

from vserver.hypervisor.libvirt import changing, domains, states
from vserver.hypervisor.libvirt.connection import Connection
from vserver.hypervisor.libvirt.held import Seen


@dataclass(frozen=True, slots=True)
class LibvirtHands:
    connection: Connection

    async def look(self, vm_id: str) -> Seen:
        return await self.connection.call(lambda conn: _look(conn, vm_id))

    async def resume(self, vm_id: str) -> None:
        await self.connection.call(lambda conn: changing.resume(conn, vm_id))

    async def settle(self, vm_id: str) -> None:
        await self.connection.call(lambda conn: changing.settle(conn, vm_id))

    async def end(self, vm_id: str) -> None:
        await self.connection.call(lambda conn: changing.end(conn, vm_id))

    async def discard(self, vm_id: str) -> None:
        await self.connection.call(lambda conn: changing.discard(conn, vm_id))


def _look(conn: Any, vm_id: str) -> Seen:
    domain = domains.find(conn, vm_id)
    if domain is None or domain.isActive() != 1:
        return Seen.GONE
    state, reason = domain.state()
    if state != libvirt.VIR_DOMAIN_PAUSED:
        return Seen.RUNS
    arriving = states.Seen(state, reason, active=True, marked=False).arriving
    return Seen.ARRIVING if arriving else Seen.LEFT_PAUSED
