"""What the contract suite needs of a pair of hosts, besides the port: somebody with virsh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol
from uuid import uuid4

from common.model.disk import Disk
from vserver.hypervisor.port import HostedVm, Hypervisor

BRIDGE = "br-1001"
TAP = "vsp0123456789"
PATIENCE = 30.0
_numbers = count(1)


class Machine:
    """A machine without an operating system: it starts at once, and idles in its firmware."""

    def __init__(self, *, tenant: str = "acme", memory_mib: int = 128, vni: str = "1001") -> None:
        number = next(_numbers)
        self.vm_id = str(uuid4())
        self.name = f"c{number}"
        self.mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        self.tenant, self.vni = tenant, vni
        self.memory_mib = memory_mib
        self._metadata = self._assignment(tenant, vni) if tenant else ""
        self.disk = ""  # the path of its disk, a qcow2

    @property
    def devices(self) -> dict[str, str]:
        return {self.mac: TAP}

    def _assignment(self, tenant: str, vni: str) -> str:
        return f"""<metadata>
            <vsignal:vm xmlns:vsignal="urn:vsignal:vm:1" tenant="{tenant}" group="web">
              <vsignal:interface mac="{self.mac}" network="blue" vni="{vni}">
                <vsignal:ip address="10.1.0.5"/>
              </vsignal:interface>
            </vsignal:vm></metadata>"""

    @property
    def xml(self) -> str:
        return f"""<domain type="qemu">
          <name>{self.name}</name><uuid>{self.vm_id}</uuid>{self._metadata}
          <memory unit="MiB">{self.memory_mib}</memory><vcpu>1</vcpu>
          <os><type arch="x86_64" machine="q35">hvm</type></os>
          <cpu mode="custom" match="exact" check="none"><model>qemu64</model></cpu>
          <devices>
            <interface type="bridge">
              <mac address="{self.mac}"/><source bridge="{BRIDGE}"/><model type="virtio"/>
            </interface>
            {self._disk()}
            <controller type="usb" model="none"/><memballoon model="none"/>
          </devices></domain>"""

    def _disk(self) -> str:
        if not self.disk:
            return ""
        return f"""<disk type="file" device="disk"><driver name="qemu" type="qcow2"/>
          <source file="{self.disk}"/><target dev="vda" bus="virtio"/></disk>"""


DISK_BYTES = 64 << 20


class Bench(Protocol):
    """Two hosts with an adaptor each. `kind` names the adaptor."""

    kind: str
    source: Hypervisor
    destination: Hypervisor
    destination_uri: str
    unreachable_uri: str

    async def create(self, machine: Machine, *, started: bool = True) -> None:
        """On the source."""
        ...

    async def make_disk(self, machine: Machine, *, there: bool = False) -> Disk:
        """A disk for it, with something on it; before `create`."""
        ...

    async def has_disk(self, machine: Machine, *, there: bool = False) -> bool | None:
        """Whether on its disk is what `make_disk` has written; None: there is no such file."""
        ...

    async def guest_writes(self, machine: Machine) -> None:
        """The guest, at the source, writes what `has_written` looks for."""
        ...

    async def has_written(self, machine: Machine, *, there: bool = False) -> bool: ...

    async def by_hand(self, action: str, vm_id: str, *, there: bool = False) -> None:
        """`start`, `stop`, `pause`, `undefine` or `migrate` (from source to destination)."""
        ...

    async def copy_slowly(self, vm_id: str) -> None:
        """A copy of this VM shall take seconds."""
        ...

    async def restart_daemon(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """The source's libvirtd goes away and comes back; no VM notices."""
        ...

    async def restart_agent(self) -> None:
        """The destination's adaptor is closed, and a new one opened."""
        ...


async def event(hypervisor: Hypervisor, vm_id: str) -> None:
    """Return once an event for this VM (or for everything) has come."""
    async with asyncio.timeout(PATIENCE):
        async for changed in hypervisor.events():
            if changed == vm_id:
                return


async def until(
    hypervisor: Hypervisor, vm_id: str, condition: Callable[[HostedVm | None], bool]
) -> HostedVm | None:
    """Look after every event until the condition holds; it may hold already."""
    async with asyncio.timeout(PATIENCE):
        found = await hypervisor.get(vm_id)
        while not condition(found):
            await event(hypervisor, vm_id)
            found = await hypervisor.get(vm_id)
    return found
