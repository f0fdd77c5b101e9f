"""A guest that is off is its definition: it moves by being written there, then removed here."""

from __future__ import annotations

import asyncio

from vserver.hypervisor.qemu.guests import Guests, refused
from vserver.hypervisor.qemu.secrecy import Secrecy
from vserver.hypervisor.qemu.wire import Address, Line

_KEEP_PATIENCE = 30.0


async def hand_over(guests: Guests, vm_id: str, destination: Address, secrecy: Secrecy) -> None:
    """Under the guest's lock, so that nobody starts it meanwhile. TimeoutError: the destination may
    have it too, and it is still here."""
    home = guests.homes.of(vm_id)
    if not home.has("definition.json"):
        raise refused(f"there is no guest {vm_id} here")
    line = await Line.connect(destination, secrecy.dial(destination))
    try:
        with home.alone():
            definition = await asyncio.to_thread(home.definition)
            if definition is None or await guests.runs(vm_id):
                raise refused(f"guest {vm_id} is not here, or not off")
            if home.has("leaving") or home.has("incoming"):
                raise refused(f"nobody knows yet how the last move of guest {vm_id} has ended")
            await line.ask(_KEEP_PATIENCE, keep=definition.model_dump_json())
            await asyncio.to_thread(home.remove)
    finally:
        line.close()
    guests.changed(vm_id)


async def keeps(guests: Guests, vm_id: str) -> bool:
    """Whether there is a definition or a process of it."""
    return await guests.runs(vm_id) or guests.homes.of(vm_id).has("definition.json")
