"""The last look at values before they become nft text: canonical, or refused.

Others have validated them already. Yet a value that slips through would not be a wrong rule but
somebody's own nft program, run as root; so nothing reaches the text that was not parsed here.
"""

from __future__ import annotations

import ipaddress
import re

from common.errors import Violation, invalid
from common.model.identity import parse_ip, parse_mac, parse_vni
from common.model.profile import AclRule, PortRange, Profile, Rate
from vserver.network.port import Port

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_U32 = 2**32 - 1


def check_device(device: str) -> None:
    """A name that is safe in nft, in sysctl paths and in chain names."""
    if not _DEVICE.fullmatch(device):
        raise invalid([Violation("device", f"not a device name that can be guarded: {device!r}")])


def check_port(port: Port) -> None:
    """Raise INVALID_FIELD unless every value is in its canonical form."""
    check_device(port.device)
    wrong = list(_wrong_addresses(port)) + list(_wrong_profile(port.profile))
    if wrong:
        raise invalid(
            [Violation(field, f"not canonical or out of range: {v!r}") for field, v in wrong]
        )


def _wrong_addresses(port: Port) -> list[tuple[str, object]]:
    wrong: list[tuple[str, object]] = []
    try:
        parse_vni(port.vni)
    except (ValueError, TypeError):
        wrong.append(("vni", port.vni))
    if not _is_canonical(parse_mac, port.mac):
        wrong.append(("mac", port.mac))
    return wrong + [("ips", ip) for ip in port.ips if not _is_canonical(parse_ip, ip)]


def _is_canonical(parse: object, text: object) -> bool:
    try:
        return isinstance(text, str) and callable(parse) and parse(text) == text
    except ValueError:
        return False


def _wrong_profile(profile: Profile) -> list[tuple[str, object]]:
    wrong: list[tuple[str, object]] = []
    for name, rate in (("egress", profile.egress_rate), ("ingress", profile.ingress_rate)):
        if rate is not None and not _rate_fits(rate):
            wrong.append((f"profile.{name}_rate", rate))
    for at, rule in enumerate(profile.acl.rules if profile.acl else ()):
        wrong += [(f"profile.acl.rules[{at}].{name}", v) for name, v in _wrong_fields(rule)]
    return wrong


def _rate_fits(rate: Rate) -> bool:
    return 8 <= rate.bits_per_second <= 2**40 and 0 < rate.burst <= _U32


def _wrong_fields(rule: AclRule) -> list[tuple[str, object]]:
    checks = [
        ("source_mac", rule.source_mac, _is_mac),
        ("destination_mac", rule.destination_mac, _is_mac),
        ("ethertype", rule.ethertype, lambda v: _is_int(v, 0xFFFF)),
        ("source_prefix", rule.source_prefix, _is_prefix),
        ("destination_prefix", rule.destination_prefix, _is_prefix),
        ("protocol", rule.protocol, lambda v: _is_int(v, 255)),
        ("source_ports", rule.source_ports, _is_range),
        ("destination_ports", rule.destination_ports, _is_range),
        ("icmp_type", rule.icmp_type, lambda v: _is_int(v, 255)),
        ("icmp_code", rule.icmp_code, lambda v: _is_int(v, 255)),
    ]
    return [(name, v) for name, v, fits in checks if v is not None and not fits(v)]


def _is_mac(value: object) -> bool:
    return isinstance(value, str) and bool(_MAC.fullmatch(value))


def _is_prefix(value: object) -> bool:
    return _is_canonical(lambda text: str(ipaddress.ip_network(text)), value)


def _is_int(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _is_range(ports: object) -> bool:
    if not isinstance(ports, PortRange):
        return False
    return (
        _is_int(ports.first, 0xFFFF) and _is_int(ports.last, 0xFFFF) and ports.first <= ports.last
    )
