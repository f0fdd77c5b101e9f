"""One other vCenter, as the configuration names it."""

from __future__ import annotations

from typing import Literal, Self

import grpc.aio
from pydantic import field_validator, model_validator

from common import rpc, tls
from common.config import Section
from common.model.identity import parse_name
from common.tls import TlsSettings

Vouching = Literal["nobody", "tenant", "view", "operate", "admin"]


class DomainSettings(Section):
    """A `child`'s or a `peer`'s ledger is followed; a `parent` is asked. `tls`: the certificate
    that the other domain's CA has given us, and that CA; without, plain text on this machine.

    `vouches`: on whose behalf it may pass calls on to us: tenants and their watchers, and operators
    up to this role. Unless it is given, a parent's admins are admins here, and nobody else's
    callers are anybody.
    """

    name: str
    address: str
    relation: Literal["child", "peer", "parent"]
    tls: TlsSettings | None = None
    vouches: Vouching | None = None

    @property
    def vouching(self) -> Vouching:
        return self.vouches or ("admin" if self.relation == "parent" else "nobody")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return parse_name(value)

    @model_validator(mode="after")
    def _not_in_plain_text(self) -> Self:
        if self.tls is None and not rpc.is_local(self.address):
            raise ValueError(f"{self.address} is not on this machine: give a certificate, in `tls`")
        return self


def dial(domain: DomainSettings) -> grpc.aio.Channel:
    """Raises `TlsError`."""
    bundle = tls.read(domain.tls) if domain.tls is not None else None
    return rpc.channel(domain.address, bundle)
