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
        if device.vxlan is None:
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
    return device.vxlan == {"id": vni, "port": PORT, "local": vtep, "learning": False}


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
    """What a tunnel does now: MAC to remote end, and the ends that get frames for all. Of any port
    of a bridge: the MACs whose frames it draws, whoever says so."""

    forwards: dict[str, str] = field(default_factory=dict)
    vteps: set[str] = field(default_factory=set)
    drawn: set[str] = field(default_factory=set)


async def entries(ip: Any, **only: int) -> defaultdict[int, Entries]:
    """By index of the device. One dump serves all of them."""
    found: defaultdict[int, Entries] = defaultdict(Entries)
    async for message in await ip.fdb("dump", **only):
        mac, remote, index = message["lladdr"], message["dst"], message["ifindex"]
        if remote and mac == FOR_ALL:
            found[index].vteps.add(remote)
        elif remote:
            found[index].forwards[mac] = remote
        elif message["master"] and message["state"] == STATE_STATIC:
            found[index].drawn.add(mac)
    return found


async def point(ip: Any, device: Link, wanted: WantedNetwork, vtep: str) -> None:
    """Forwarding entries to exactly this state."""
    now = (await entries(ip, ifindex=device.index))[device.index]
    await _write(ip, device, now, _entries_of(wanted, vtep))


async def amend(ip: Any, known: WantedNetwork, wanted: WantedNetwork, vtep: str) -> bool:
    """Only what differs from what is known: a quarter of the cycles, in the middle of a move.
    False if that does not lead there: then the whole has to be looked at."""
    device = await links.find(ip, device_name(wanted.vni))
    if device is None or not (device.master and device.is_up and known.network == wanted.network):
        return False
    try:
        await _write(ip, device, _entries_of(known, vtep), _entries_of(wanted, vtep))
    except NetlinkError:  # what was known is not so
        return False
    return True


def _entries_of(wanted: WantedNetwork, vtep: str) -> Entries:
    """Our own end is left out wherever it is named: it would send our frames back to us."""
    forwards = {f.mac: f.vtep_address for f in wanted.forwards if f.vtep_address != vtep}
    return Entries(forwards, set(wanted.vteps) - {vtep})


async def _write(ip: Any, device: Link, now: Entries, target: Entries) -> None:
    """From these entries to those; new ways first, old ways away afterwards."""
    for mac, remote in target.forwards.items():
        if now.forwards.get(mac) != remote:
            await _forward(ip, device, mac, remote)
    for remote in target.vteps - now.vteps:
        await ip.fdb("append", ifindex=device.index, lladdr=FOR_ALL, dst=remote, flags=FLAG_SELF)
    for remote in now.vteps - target.vteps:
        await _forget(ip, device, FOR_ALL, remote)
    for mac in now.forwards.keys() - target.forwards.keys():
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
