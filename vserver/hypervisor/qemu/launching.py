"""Starting a guest's QEMU: paused, plugged in, and recorded, for a start as for an arrival."""

from __future__ import annotations

import asyncio
from pathlib import Path

from common.clock import Clock
from common.errors import Reason, Refusal
from vserver.hypervisor import acceleration
from vserver.hypervisor.qemu import process, taps
from vserver.hypervisor.qemu.command import command, tap_name
from vserver.hypervisor.qemu.definition import Definition
from vserver.hypervisor.qemu.home import Home, Homes, Launch
from vserver.hypervisor.qemu.monitor import Monitor, at_hand

BINARY = "qemu-system-x86_64"
_UNLIMITED = 1 << 40  # bytes a second


async def accelerator(homes: Homes, clock: Clock) -> str:
    """`kvm` or `tcg`: a guest is booted to find out, once each time that the host has booted."""
    boot = await asyncio.to_thread(_boot_id)
    known = homes.root / f"acceleration.{boot}"
    if known.exists():
        return known.read_text()
    found = await acceleration.probe(clock)
    for old in homes.root.glob("acceleration.*"):
        old.unlink(missing_ok=True)
    known.write_text(found)
    return found


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def launch(home: Home, definition: Definition, kind: str) -> None:
    """Start it here, from its beginning."""
    devices = {nic.mac: tap_name(definition.uuid, nic.mac) for nic in definition.interface}
    planned = Launch(
        definition=definition, taps=devices, accelerator=kind, machine=definition.machine
    )
    await run(home, planned, incoming=False)
    async with at_hand(home.file("hand"), home.vm_id) as monitor:
        versioned = planned.model_copy(update={"machine": await _machine(monitor)})
        await asyncio.to_thread(home.started, versioned)
        await unlimit(monitor)
        await monitor.execute("cont")


async def unlimit(monitor: Monitor) -> None:
    """Its copies take what the network gives; QEMU's own limit is that of a 1 Gbit/s link. Who
    sets another on a guest's monitor is obeyed."""
    await monitor.execute("migrate-set-parameters", max_bandwidth=_UNLIMITED)


async def run(home: Home, planned: Launch, *, incoming: bool) -> None:
    """Its QEMU is there, its CPUs stand still, its taps are plugged in; or nothing is there."""
    await taps.check_bridges(planned.definition)
    if found := await asyncio.to_thread(process.search, home):
        found.close()
        raise Refusal(Reason.HYPERVISOR_FAILED, f"guest {home.vm_id} runs here already")
    await asyncio.to_thread(home.started, planned)
    await process.start(command(BINARY, home, planned, incoming=incoming))
    try:
        await taps.plug(planned.definition, planned.taps)
    except BaseException:
        await end(home)
        raise


async def end(home: Home) -> None:
    """End its QEMU, if there is one, and wait until it is gone."""
    found = await asyncio.to_thread(process.search, home)
    if found is None:
        return
    try:
        found.kill()
        await process.ended(found)
    finally:
        found.close()


async def _machine(monitor: Monitor) -> str:
    """`pc-q35-7.2` for `q35`: another QEMU may mean another by the short name."""
    kind = await monitor.execute("qom-get", path="/machine", property="type")
    return str(kind).removesuffix("-machine")
