"""Plugging a guest's taps into their bridges, before its first instruction."""

from __future__ import annotations

from collections.abc import Mapping

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from common.errors import Reason, Refusal
from vserver.hypervisor.qemu.definition import Definition


async def check_bridges(definition: Definition) -> None:
    """Before QEMU is started in vain."""
    async with AsyncIPRoute() as ip:
        for nic in definition.interface:
            if not await ip.link_lookup(ifname=nic.bridge):
                hint = "; the agent makes it" if nic.bridge == "vsignal" else ""
                text = f"there is no bridge {nic.bridge} here{hint}"
                raise Refusal(Reason.HYPERVISOR_FAILED, text)


async def plug(definition: Definition, taps: Mapping[str, str]) -> None:
    """The tap's own address is high, lest its bridge take it for its own."""
    try:
        async with AsyncIPRoute() as ip:
            for nic in definition.interface:
                [bridge] = await ip.link_lookup(ifname=nic.bridge)
                [tap] = await ip.link_lookup(ifname=taps[nic.mac])
                await ip.link("set", index=tap, address=f"fe{nic.mac[2:]}")
                await ip.link("set", index=tap, master=bridge, state="up")
    except (NetlinkError, OSError, ValueError) as error:
        text = f"cannot plug {definition.name} in: {error}"
        raise Refusal(Reason.HYPERVISOR_FAILED, text) from error
