"""Bridges and taps by netlink. A socket for each piece of work: opening one costs 0.3 ms, and a
cancelled request can leave no stray reply for the next.

What we made is marked in its alias, so that an operator's bridge is used but never removed.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from common.errors import Reason, Refusal
from vserver.network.linux.command import Commands
from vserver.network.linux.lean import CLASSES, LeanLink

MARK = "vsignal"
FLAG_SELF, FLAG_MASTER = 0x02, 0x04  # linux/neighbour.h: NTF_*
STATE_STATIC = 0x40  # NUD_NOARP: not learned, not the bridge's own
UP = 1


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str
    master: int
    mtu: int
    is_up: bool
    alias: str
    vxlan: dict[str, Any] | None  # how a tunnel is set up, see `LeanLink`

    @property
    def is_ours(self) -> bool:
        return self.alias.split(" ")[0] == MARK


@asynccontextmanager
async def netlink(netns: str | None) -> AsyncIterator[Any]:
    """A netlink socket; what the kernel refuses becomes a Refusal in its own words."""
    try:
        async with AsyncIPRoute(netns=netns) if netns else AsyncIPRoute() as ip:
            ip.marshal.msg_map.update(CLASSES)  # this socket's own copy of the map
            yield ip
    except NetlinkError as error:
        raise Refusal(Reason.NETWORK_FAILED, f"netlink: {error.args[-1]}") from error
    except OSError as error:
        raise Refusal(Reason.NETWORK_FAILED, f"netlink: {error}") from error


async def links(ip: Any) -> list[Link]:
    return [_link(message) async for message in await ip.get_links()]


async def find(ip: Any, name: str) -> Link | None:
    try:
        return _link((await ip.link("get", ifname=name))[0])
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


async def need(ip: Any, name: str) -> Link:
    link = await find(ip, name)
    if link is None:
        raise Refusal(Reason.NETWORK_FAILED, f"{name} vanished while it was set up")
    return link


def _link(message: LeanLink) -> Link:
    return Link(
        index=message["index"],
        name=message["ifname"],
        kind=message["kind"],
        master=message["master"],
        mtu=message["mtu"],
        is_up=bool(message["flags"] & UP),
        alias=message["ifalias"],
        vxlan=message["vxlan"],
    )


def bridge_name(vni: int) -> str:
    return f"br-{vni}"


async def ensure_bridge(ip: Any, commands: Commands, name: str) -> Link:
    """A bridge, up. One that is there already is taken as it is."""
    bridge = await _bridge(ip, commands, name)
    if not bridge.is_up:
        await ip.link("set", index=bridge.index, state="up")
    return bridge


async def ensure_intake(ip: Any, commands: Commands, name: str) -> None:
    """A bridge to define VMs on, and down, for then it forwards nothing.

    libvirtd, restarted, puts every tap back there: VMs of all tenants, their ports open.
    """
    bridge = await _bridge(ip, commands, name)
    if bridge.is_up:
        await ip.link("set", index=bridge.index, state="down")


async def _bridge(ip: Any, commands: Commands, name: str) -> Link:
    bridge = await find(ip, name)
    if bridge is None:
        # Snooping off: without a querier it would keep multicast, ND among it, from the VMs.
        await ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0,
                      br_mcast_snooping=0)  # fmt: skip
        bridge = await need(ip, name)
        await ip.link("set", index=bridge.index, ifalias=MARK)
        await _keep_host_out(commands, name)
    if bridge.kind != "bridge":
        raise Refusal(Reason.NETWORK_FAILED, f"{name} is there, and is not a bridge")
    return bridge


async def _keep_host_out(commands: Commands, name: str) -> None:
    """A tenant's network is no place for the host's own IPv6. A kernel without it is fine too."""
    await commands.succeeds(
        ["sysctl", "-qw", f"net.ipv6.conf.{name.replace('.', '/')}.disable_ipv6=1"]
    )


async def remove_bridge(ip: Any, name: str) -> None:
    """Only one that we made, and that nothing is plugged into any more."""
    bridge = await find(ip, name)
    if bridge is None or not bridge.is_ours:
        return
    if not any(link.master == bridge.index for link in await links(ip)):
        await ip.link("del", index=bridge.index)


async def point_to_tap(ip: Any, tap: int, mac: str, is_open: bool) -> None:
    """Frames for the VM go to its tap as soon as, and only while, its port is open.

    A port that is prepared for a move stays closed, and must not draw frames from the VM that
    still runs elsewhere.
    """
    for entry in await static_entries(ip, tap):
        if entry != mac or not is_open:
            await drop_entry(ip, tap, entry)
    if is_open:
        await ip.fdb("replace", ifindex=tap, lladdr=mac, flags=FLAG_MASTER, state=STATE_STATIC)


async def static_entries(ip: Any, index: int) -> list[str]:
    """The bridge's static entries that point to this port."""
    return [
        message["lladdr"]
        async for message in await ip.fdb("dump", ifindex=index)
        if message["state"] == STATE_STATIC and message["master"]
    ]


async def drop_entry(ip: Any, index: int, mac: str) -> None:
    """Gone already, or pointing elsewhere by now, is as good."""
    try:
        await ip.fdb("del", ifindex=index, lladdr=mac, flags=FLAG_MASTER)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ENODEV):
            raise
