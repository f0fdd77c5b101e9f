"""A `Port` as text and back, kept in the kernel next to the rules that it became.

The text lives in the comments of a chain that no frame reaches. So rules and their meaning change
in one transaction, an agent that restarts needs no memory of its own, and no file can disagree.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from common.model.profile import Acl, AclRule, Action, Direction, PortRange, Profile, Rate
from vserver.network.port import Port

_CHUNK = 120  # nft's comments hold 128 bytes
_FORMAT = 1


def to_comments(port: Port) -> list[str]:
    """The port as a few short pieces of base64. Whether it is open is in the maps alone."""
    fields = asdict(replace(port, is_open=False))
    text = json.dumps([_FORMAT, fields], sort_keys=True, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return [packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK)]


def from_comments(comments: Sequence[str]) -> Port | None:
    """The port again, as a closed one; None if somebody else wrote there."""
    try:
        packed = base64.b64decode("".join(comments), validate=True)
        form, fields = json.loads(zlib.decompress(packed))
        return _port(fields) if form == _FORMAT else None
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


def _port(fields: dict[str, Any]) -> Port:
    ips, profile = tuple(fields.pop("ips")), _profile(fields.pop("profile"))
    return Port(ips=ips, profile=profile, **fields)


def _profile(fields: dict[str, Any]) -> Profile:
    acl = fields.pop("acl")
    ingress, egress = fields.pop("ingress_rate"), fields.pop("egress_rate")
    return Profile(
        acl=_acl(acl) if acl else None,
        ingress_rate=Rate(**ingress) if ingress else None,
        egress_rate=Rate(**egress) if egress else None,
        **fields,
    )


def _acl(fields: dict[str, Any]) -> Acl:
    return Acl(
        rules=tuple(_rule(rule) for rule in fields["rules"]),
        default_ingress=Action(fields["default_ingress"]),
        default_egress=Action(fields["default_egress"]),
    )


def _rule(fields: dict[str, Any]) -> AclRule:
    for enum, name in ((Action, "action"), (Direction, "direction")):
        fields[name] = enum(fields[name])
    for name in ("source_ports", "destination_ports"):
        if fields[name] is not None:
            fields[name] = PortRange(**fields[name])
    return AclRule(**fields)
