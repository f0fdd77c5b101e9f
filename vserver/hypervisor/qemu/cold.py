"""A guest that is off is its definition: it moves by being written there, then removed here.

Its own disks go before it, to who takes them there, and stay here until the move's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common.model.disk import Disk
from vserver.hypervisor import receiver, sender
from vserver.hypervisor.port import Luggage
from vserver.hypervisor.qemu import disks as own_disks
from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.home import Home
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.wire import Address, Line
from vserver.hypervisor.receiver import Image, Receiver
from vserver.hypervisor.sender import Senders

_KEEP_PATIENCE = 30.0


class Cold:
    """Guests that are off, of one host. `address`: where it hears of arrivals, if it does."""

    def __init__(self, guests: Guests, address: Address | None, secrecy: Secrecy) -> None:
        self._guests = guests
        self._address = address
        self._secrecy = secrecy
        self._senders = Senders(secrecy.pki)

    @property
    def carries_disks(self) -> bool:
        return self._address is not None and receiver.available() and sender.available()

    # ---- where the guest comes to ----

    async def take(self, vm_id: str, disks: Sequence[Disk]) -> int:
        if self._address is None:
            raise refused("this host takes no guests, and no disks")
        home = self._guests.homes.of(vm_id)
        await own_disks.make(home, disks)
        return await self._receiver(home, self._address).serve(_images(home, disks))

    async def take_no_more(self, vm_id: str) -> None:
        home = self._guests.homes.of(vm_id)
        if home.has(own_disks.MADE) and self._address is not None:
            await self._receiver(home, self._address).stop()

    async def settle(self, vm_id: str) -> None:
        await self.take_no_more(vm_id)
        own_disks.keep(self._guests.homes.of(vm_id))

    def _receiver(self, home: Home, address: Address) -> Receiver:
        return Receiver(home.file("receiver"), address.host, self._secrecy.pki)

    # ---- where it comes from ----

    async def hand_over(self, vm_id: str, destination: str, luggage: Luggage) -> None:
        """Under the guest's lock, so that nobody starts it meanwhile. TimeoutError: the destination
        may have it too, and it is still here."""
        home, address = self._guests.homes.of(vm_id), Address.parse(destination)
        if not home.has("definition.json"):
            raise refused(f"there is no guest {vm_id} here")
        with home.alone():
            definition = await asyncio.to_thread(home.definition)
            if definition is None or await self._guests.runs(vm_id):
                raise refused(f"guest {vm_id} is not here, or not off")
            if home.has("leaving") or home.has("incoming"):
                raise refused(f"nobody knows yet how the last move of guest {vm_id} has ended")
            own_disks.numbers(definition, luggage.disks)
            if luggage.disks:
                images = _images(home, luggage.disks)
                await self._senders.send(vm_id, images, destination, luggage.port, luggage.told)
            line = await Line.connect(address, self._secrecy.dial(address))
            try:
                await line.ask(_KEEP_PATIENCE, keep=definition.model_dump_json())
            finally:
                line.close()
            await asyncio.to_thread(home.remove)
        self._guests.changed(vm_id)

    async def keeps(self, vm_id: str) -> bool:
        """Whether there is a definition or a process of it."""
        defined = self._guests.homes.of(vm_id).has("definition.json")
        return await self._guests.runs(vm_id) or defined

    def abort(self, vm_id: str) -> None:
        self._senders.abort(vm_id)


def _images(home: Home, disks: Sequence[Disk]) -> list[Image]:
    """As both ends number them."""
    return [Image(n, home.file(disk.path), disk.format) for n, disk in enumerate(disks)]
