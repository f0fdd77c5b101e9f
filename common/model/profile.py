"""Network policy (draft 3.4, 3.5): VLAN, ACL, rates, anti-spoofing; merged and hashed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import lru_cache

MAX_RULES = 256
TCP, UDP, SCTP, ICMP, ICMP6 = 6, 17, 132, 1, 58
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806


class Action(StrEnum):
    PERMIT = "permit"
    DENY = "deny"


class Direction(StrEnum):
    """As the VM sees it: ingress is towards the VM."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Capability(StrEnum):
    """What a data plane can enforce; a profile that needs more is refused."""

    ACL = "acl"
    RATE = "rate"
    ANTI_SPOOFING = "anti-spoofing"
    VLAN = "vlan"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Layer-4 ports, both ends included, 0..65535."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AclRule:
    """One stateless rule; a field that is None (or "") matches everything."""

    action: Action
    direction: Direction
    name: str = ""
    source_mac: str | None = None
    destination_mac: str | None = None
    ethertype: int | None = None
    source_prefix: str | None = None
    destination_prefix: str | None = None
    protocol: int | None = None
    source_ports: PortRange | None = None
    destination_ports: PortRange | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass(frozen=True, slots=True)
class Acl:
    """Ordered rules; the first match decides, then the direction's default."""

    rules: tuple[AclRule, ...] = ()
    default_ingress: Action = Action.PERMIT
    default_egress: Action = Action.PERMIT


@dataclass(frozen=True, slots=True)
class Rate:
    """A policer. `burst_bytes` 0 means a tenth of a second's worth, at least 15000."""

    bits_per_second: int
    burst_bytes: int = 0

    @property
    def burst(self) -> int:
        """Effective burst in bytes."""
        return self.burst_bytes or max(15_000, self.bits_per_second // 80)


@dataclass(frozen=True, slots=True)
class Profile:
    """None means "not said here", so that a VM's profile can be laid over its group's.

    `router_advertisements`, `dhcp_server`: whether the VM may send what only routers and DHCP
    servers do, which anti-spoofing drops otherwise.
    """

    vlan: int | None = None
    acl: Acl | None = None
    ingress_rate: Rate | None = None
    egress_rate: Rate | None = None
    priority: int | None = None
    anti_spoofing: bool | None = None
    router_advertisements: bool | None = None
    dhcp_server: bool | None = None

    def over(self, base: Profile | None) -> Profile:
        """This profile's fields where it has them, else those of `base`."""
        if base is None:
            return self
        names = [f.name for f in fields(Profile)]
        own = {name: getattr(self, name) for name in names}
        return Profile(**{n: v if v is not None else getattr(base, n) for n, v in own.items()})

    @property
    def spoofing_is_checked(self) -> bool:
        """Anti-spoofing is on unless somebody turned it off by name."""
        return self.anti_spoofing is not False

    def needs(self) -> frozenset[Capability]:
        """What a host must be able to enforce before it may carry this profile."""
        wanted = {
            Capability.VLAN: self.vlan is not None,
            Capability.ACL: self.acl is not None,
            Capability.RATE: self.ingress_rate is not None or self.egress_rate is not None,
            Capability.PRIORITY: self.priority is not None,
            Capability.ANTI_SPOOFING: self.spoofing_is_checked,
        }
        return frozenset(capability for capability, needed in wanted.items() if needed)

    def digest(self) -> str:
        """Canonical SHA-256, hex: equal policies have equal hashes on every host and release."""
        return _digest(self)


def effective(own: Profile | None, group: Profile | None) -> Profile:
    """The VM's own profile over its group's, field by field."""
    if own is None:
        return group if group is not None else _SILENT
    return own.over(group)


@lru_cache(maxsize=4096)
def _digest(profile: Profile) -> str:
    """Kept, because hosts, watchers and lookups ask for the same few again and again."""
    canonical = json.dumps(_without_none(asdict(profile)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


_SILENT = Profile()


def _without_none(value: object) -> object:
    """Fields added later default to None, and must not change the hash of older profiles."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
