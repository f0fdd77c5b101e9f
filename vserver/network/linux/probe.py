"""What this kernel can enforce: tried, not assumed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from common.errors import Refusal
from common.model.profile import (
    Acl,
    AclRule,
    Action,
    Capability,
    Direction,
    PortRange,
    Profile,
    Rate,
)
from vserver.network.linux.command import Commands
from vserver.network.linux.table import Table
from vserver.network.port import Port

_MAC, _IPS = "02:00:00:00:00:01", ("192.0.2.1", "2001:db8::1")
_ALL_FIELDS = AclRule(
    Action.DENY, Direction.EGRESS, "", _MAC, _MAC, 0x0800, "192.0.2.0/24", "192.0.2.0/24", 6,
    PortRange(1, 2), PortRange(3, 3),
)  # fmt: skip
_PING = AclRule(Action.PERMIT, Direction.INGRESS, protocol=58, icmp_type=128, icmp_code=0)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `capability` is None where it only informs."""

    name: str
    works: bool
    explanation: str
    capability: Capability | None = None


async def probe(commands: Commands) -> list[Finding]:
    """Nothing of this stays on the host."""
    return [
        await _nft(commands),
        await _accepts(commands, Capability.ACL, Profile(acl=Acl((_ALL_FIELDS, _PING)))),
        await _accepts(commands, Capability.RATE, Profile(egress_rate=Rate(8_000_000))),
        await _accepts(commands, Capability.ANTI_SPOOFING, Profile(anti_spoofing=True)),
        await _vlan(commands),
        Finding("priority", False, "nftables cannot queue by priority; no port asks for it here"),
        await _links(commands, "bridge"),
        await _links(commands, "vxlan id 1 dstport 0"),
        await _netfilter(commands),
    ]


async def _nft(commands: Commands) -> Finding:
    works = await commands.nft_accepts(Table(("vnet",), "vsignal-probe").base())
    text = "taps are closed by default" if works else "no bridge family: no port can be guarded"
    return Finding("nftables bridge family", works, text)


async def _accepts(commands: Commands, capability: Capability, profile: Profile) -> Finding:
    if profile.anti_spoofing is None:
        profile = Profile(anti_spoofing=False).over(profile)
    table = Table(("vnet",), "vsignal-probe", hooked=False)
    port = Port("vnet0", _MAC, _IPS, 1, profile, is_open=True)
    works = await commands.nft_accepts([*table.base(), *table.put(port)])
    text = "nftables takes these rules" if works else "this kernel or nft lacks what the rules need"
    return Finding(capability.value, works, text, capability)


async def _vlan(commands: Commands) -> Finding:
    """Tried for the operator's sake. Even where it works it is not offered: see the text."""
    filters = await _link(commands, "bridge vlan_filtering 1")
    kernel = "has" if filters else "lacks"
    text = f"the kernel {kernel} VLAN filtering; this adaptor puts no VLAN on a port yet"
    return Finding(Capability.VLAN.value, False, text)


async def _links(commands: Commands, kind: str) -> Finding:
    name = kind.split(" ", 1)[0]
    works = await _link(commands, kind)
    return Finding(name, works, f"{name} devices {'can' if works else 'cannot'} be made")


async def _netfilter(commands: Commands) -> Finding:
    """A host firewall that sees bridged frames may drop what a profile permits."""
    key = "net.bridge.bridge-nf-call-iptables"
    try:
        is_apart = (await commands.run(["sysctl", "-n", key])).strip() == "0"
    except Refusal:
        is_apart = True  # br_netfilter is not loaded
    text = "is" if not is_apart else "is not"
    return Finding(
        "host firewall apart", is_apart, f"the VMs' traffic {text} subject to iptables: {key}"
    )


async def _link(commands: Commands, kind: str) -> bool:
    """Make a device of this kind, and take it away again."""
    name = f"vsig-{secrets.token_hex(4)}"
    made = await commands.succeeds(["ip", "link", "add", name, "type", *kind.split()])
    await commands.succeeds(["ip", "link", "del", name])
    return made
