"""A new domain in one step: CA, the vCenter's certificate, a first operator's, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common import certificates
from common.model.caller import Caller, Role
from common.secrets import write_private, write_public
from vcenter.ca import authority
from vcenter.ca.authority import Authority

VCENTER_LIFE = timedelta(days=30)  # renewed by the vCenter itself
OPERATOR_LIFE = timedelta(days=90)

_VCENTER = """\
# Written by `vcenter init`; deploy/examples/vcenter.toml shows every key.
domain = "{domain}"
listen = [{listen}]
store = "sqlite:{folder}/ledger.db"

[tls]
identity = "{folder}/identity.pem"
ca = "{folder}/ca.pem"

[ca]
certificate = "{folder}/ca.pem"
key = "{folder}/ca.key"
listen = "{join}"
"""
_VCTL = """\
# Written by `vcenter init`. Keep this folder to yourself: identity.pem is your key.
server = "{server}"
tls = {{identity = "identity.pem", ca = "ca.pem"}}
"""


class DomainExists(Exception):
    """There is a CA already; making another would orphan every certificate."""


@dataclass(frozen=True, slots=True)
class Plan:
    domain: str
    folder: Path
    listen: Sequence[str]
    operator: str
    join: str  # where hosts and people redeem join tokens

    @property
    def vctl(self) -> Path:
        return self.folder / "vctl" / "vctl.toml"


def init(plan: Plan, now_ms: int) -> Authority:
    """Raises `DomainExists`, OSError. The CA's key is written last but for the configuration: a run
    that failed may be repeated."""
    folder = plan.folder
    if (folder / "ca.key").exists():
        raise DomainExists(f"{folder}/ca.key exists; choose another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan.vctl.parent.mkdir(mode=0o700, exist_ok=True)
    ca = authority.create(plan.domain, now_ms)
    write_public(folder / "ca.pem", ca.pem)
    issue(ca, Caller(Role.VCENTER, "first"), folder / "identity.pem", VCENTER_LIFE, now_ms)
    operator = Caller(Role.ADMIN, plan.operator)
    issue(ca, operator, plan.vctl.parent / "identity.pem", OPERATOR_LIFE, now_ms)
    write_public(plan.vctl.parent / "ca.pem", ca.pem)
    write_public(plan.vctl, _VCTL.format(server=plan.listen[0]).encode())
    listen = ", ".join(f'"{address}"' for address in plan.listen)
    text = _VCENTER.format(domain=plan.domain, listen=listen, folder=folder, join=plan.join)
    write_private(folder / "ca.key", ca.key_pem)
    write_public(folder / "vcenter.toml", text.encode())
    return ca


def issue(ca: Authority, caller: Caller, path: Path, life: timedelta, now_ms: int) -> None:
    """A new key and its certificate, in one file."""
    key = certificates.new_key()
    signed = ca.sign(key.public_key(), caller, authority.new_serial(), now_ms, life)
    write_private(path, certificates.key_pem(key) + signed)
