"""One VXLAN device for each VNI, with forwarding entries from the ledger and none learned.

Two tables have to agree on a remote MAC: the bridge's says "through the tunnel", the tunnel's says
"to this end". The newest word wins in the bridge: an entry is written there when a forward is new
or changes, so that repeating an old state never takes a VM that has arrived away from its tap.
"""

from __future__ import annotations

import errno
import ipaddress
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from common.errors import Reason, Refusal
from common.model.wanted import Forward, WantedNetwork
from vserver.network.linux import links
from vserver.network.linux.links import FLAG_MASTER, FLAG_SELF, STATE_STATIC, Link

PORT = 4789  # RFC 7348
FOR_ALL = "00:00:00:00:00:00"
_OVERHEAD = {4: 50, 6: 70}
_STATIC_REMOTE = STATE_STATIC | 0x80  # VXLAN takes permanent entries only: NUD_PERMANENT


def device_name(vni: int) -> str:
    return f"vx-{vni}"


async def ensure(ip: Any, wanted: WantedNetwork, vtep: str, bridge: Link) -> Link:
    """The tunnel device, on its bridge and up; made again if its fixed settings differ."""
    name = device_name(wanted.vni)
    device = await links.find(ip, name)
    if device is not None and not _fits(device, wanted.vni, vtep):
        if device.kind != "vxlan":
            raise Refusal(Reason.NETWORK_FAILED, f"{name} is there, and is not a VXLAN device")
        await ip.link("del", index=device.index)
        device = None
    if device is None:
        await _make(ip, wanted.vni, vtep)
        device = await links.need(ip, name)
    alias = f"{links.MARK} {wanted.network}"
    if device.alias != alias:
        await ip.link("set", index=device.index, ifalias=alias)
    if device.master != bridge.index or not device.is_up:
        await ip.link("set", index=device.index, master=bridge.index, state="up")
    return device


def _fits(device: Link, vni: int, vtep: str) -> bool:
    local = device.data.get("IFLA_VXLAN_LOCAL") or device.data.get("IFLA_VXLAN_LOCAL6")
    number, port = device.data.get("IFLA_VXLAN_ID"), device.data.get("IFLA_VXLAN_PORT")
    learns = device.data.get("IFLA_VXLAN_LEARNING")
    return (device.kind, number, port, local, learns) == ("vxlan", vni, PORT, vtep, 0)


async def _make(ip: Any, vni: int, vtep: str) -> None:
    version = ipaddress.ip_address(vtep).version
    local = {"vxlan_local" if version == 4 else "vxlan_local6": vtep}
    underlay = await _underlay_mtu(ip, vtep)
    mtu = {"mtu": underlay - _OVERHEAD[version]} if underlay else {}
    await ip.link("add", ifname=device_name(vni), kind="vxlan", vxlan_id=vni, vxlan_port=PORT,
                  vxlan_learning=0, **local, **mtu)  # fmt: skip


async def _underlay_mtu(ip: Any, vtep: str) -> int:
    async for address in await ip.get_addr(address=vtep):
        for link in await links.links(ip):
            if link.index == address["index"]:
                return link.mtu
    return 0


@dataclass(slots=True)
class Entries:
    """What a tunnel does now: MAC to remote end, and the ends that get frames for all."""

    forwards: dict[str, str] = field(default_factory=dict)
    vteps: set[str] = field(default_factory=set)


async def entries(ip: Any, **only: int) -> defaultdict[int, Entries]:
    """By index of the tunnel device. One dump serves all of them."""
    found: defaultdict[int, Entries] = defaultdict(Entries)
    async for message in await ip.fdb("dump", **only):
        mac, remote, index = message.get("lladdr"), message.get("dst"), message["ifindex"]
        if remote and mac == FOR_ALL:
            found[index].vteps.add(remote)
        elif remote:
            found[index].forwards[mac] = remote
    return found


async def point(ip: Any, device: Link, wanted: WantedNetwork, vtep: str) -> None:
    """Forwarding entries to exactly this state; new ways first, old ways away afterwards.

    Our own end is left out wherever it is named: it would send our frames back to us.
    """
    now = (await entries(ip, ifindex=device.index))[device.index]
    target = {f.mac: f.vtep_address for f in wanted.forwards if f.vtep_address != vtep}
    vteps = set(wanted.vteps) - {vtep}
    for mac, remote in target.items():
        if now.forwards.get(mac) != remote:
            await _forward(ip, device, mac, remote)
    for remote in vteps - now.vteps:
        await ip.fdb("append", ifindex=device.index, lladdr=FOR_ALL, dst=remote, flags=FLAG_SELF)
    for remote in now.vteps - vteps:
        await _forget(ip, device, FOR_ALL, remote)
    for mac in now.forwards.keys() - target.keys():
        await _forget(ip, device, mac, now.forwards[mac])
        await links.drop_entry(ip, device.index, mac)


async def _forward(ip: Any, device: Link, mac: str, remote: str) -> None:
    """Replaced in place: at no moment is the MAC unknown, which would flood its frames."""
    where = {"ifindex": device.index, "lladdr": mac}
    await ip.fdb("replace", **where, dst=remote, flags=FLAG_SELF, state=_STATIC_REMOTE)
    await ip.fdb("replace", **where, flags=FLAG_MASTER, state=STATE_STATIC)


async def _forget(ip: Any, device: Link, mac: str, remote: str) -> None:
    try:
        await ip.fdb("del", ifindex=device.index, lladdr=mac, dst=remote, flags=FLAG_SELF)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise


def to_wanted(device: Link, vni: int, now: Entries) -> WantedNetwork:
    """In canonical order: forwards by MAC, ends by text."""
    return WantedNetwork(
        vni=vni,
        network=device.alias.removeprefix(links.MARK).strip(),
        forwards=tuple(Forward(mac, now.forwards[mac]) for mac in sorted(now.forwards)),
        vteps=tuple(sorted(now.vteps)),
    )
