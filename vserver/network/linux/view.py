"""What was read from the kernel, put together as the port's `Observed`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from common.model.wanted import WantedNetwork
from vserver.network.linux.links import Link, bridge_name
from vserver.network.linux.readback import Listing
from vserver.network.linux.tunnel import Entries, device_name, to_wanted
from vserver.network.port import Observed, ObservedPort, Port

_TUNNEL = re.compile(r"vx-([0-9]+)")
_BRIDGE = re.compile(r"br-[0-9]+")


def observed(
    intact: Mapping[Port, bool], by_name: Mapping[str, Link], entries: Mapping[int, Entries]
) -> Observed:
    ports = {
        port.device: ObservedPort(port, is_intact, _is_attached(by_name, entries, port))
        for port, is_intact in intact.items()
    }
    networks = (_network(by_name, entries, device) for device in by_name.values())
    return Observed(ports, {network.vni: network for network in networks if network})


def _is_attached(by_name: Mapping[str, Link], entries: Mapping[int, Entries], port: Port) -> bool:
    """A frame for a VM with an open port goes to its tap, or on to where the VM is now."""
    tap, bridge = by_name.get(port.device), by_name.get(bridge_name(port.vni))
    if tap is None or bridge is None or tap.master != bridge.index:
        return False
    ways = [tap, by_name.get(device_name(port.vni))]
    drawn = (entries[way.index].drawn for way in ways if way and way.index in entries)
    return not port.is_open or any(port.mac in macs for macs in drawn)


def _network(
    by_name: Mapping[str, Link], entries: Mapping[int, Entries], device: Link
) -> WantedNetwork | None:
    """The network of a tunnel that is ours and works: up, and on its bridge."""
    found = _TUNNEL.fullmatch(device.name)
    if not found or not device.is_ours or not device.is_up:
        return None
    vni = int(found[1])
    bridge = by_name.get(bridge_name(vni))
    if not bridge or not bridge.is_up or device.master != bridge.index:
        return None
    return to_wanted(device, vni, entries.get(device.index, Entries()))


def strays(links: Sequence[Link], listing: Listing, prefixes: tuple[str, ...]) -> list[str]:
    """Taps on a VNI's bridge that no port knows, and whose names are not closed by themselves."""
    bridges = {link.index for link in links if _BRIDGE.fullmatch(link.name)}
    known = listing.devices() | listing.elements.get("closed", {}).keys()
    taps = [link.name for link in links if link.kind == "tun" and link.master in bridges]
    return [name for name in taps if name not in known and not name.startswith(prefixes)]
