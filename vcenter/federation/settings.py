"""One other vCenter, as the configuration names it."""

from __future__ import annotations

from typing import Literal, Self

import grpc.aio
from pydantic import Field, field_validator, model_validator

from common import rpc, tls
from common.config import Section
from common.model.identity import parse_name
from common.model.telling import MAX_TENANTS, Telling, Tells
from common.tls import TlsSettings

Vouching = Literal["nobody", "tenant", "view", "operate", "admin"]


class DomainSettings(Section):
    """A `child`'s or a `peer`'s ledger is followed; a `parent` is asked. `tls`: the certificate
    that the other domain's CA has given us, and that CA; without, plain text on this machine.

    `vouches`: on whose behalf it may pass calls on to us: tenants and their watchers, and operators
    up to this role. Unless it is given, a parent's admins are admins here, and nobody else's
    callers are anybody.

    `twins`: what becomes of an identity that it holds, and we or another neighbour, too: `freeze`,
    no orders are taken about such a VM until one of the two is gone; or `alarm`, it is only shown.
    Unless it is given, a child's word and a parent's freeze, a peer's does not.

    `tells`: what it may learn of us: everything; the VMs of `tenants`, and the vServers; or nothing
    but answers to lookups, when it asks.
    """

    name: str
    address: str
    relation: Literal["child", "peer", "parent"]
    tls: TlsSettings | None = None
    vouches: Vouching | None = None
    twins: Literal["freeze", "alarm"] | None = None
    tells: Literal["everything", "tenants", "lookups"] = "everything"
    tenants: tuple[str, ...] = Field(default=(), max_length=MAX_TENANTS)

    @property
    def telling(self) -> Telling:
        return Telling(self.name, Tells(self.tells), tuple(sorted(set(self.tenants))))

    @property
    def vouching(self) -> Vouching:
        return self.vouches or ("admin" if self.relation == "parent" else "nobody")

    @property
    def freezes(self) -> bool:
        """Whether its word freezes an identity."""
        return (self.twins or ("alarm" if self.relation == "peer" else "freeze")) == "freeze"

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return parse_name(value)

    @field_validator("tenants")
    @classmethod
    def _tenants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(parse_name(name) for name in value)

    @model_validator(mode="after")
    def _tenants_are_meant(self) -> Self:
        self.telling  # noqa: B018 - it says what is wrong
        return self

    @model_validator(mode="after")
    def _not_in_plain_text(self) -> Self:
        if self.tls is None and not rpc.is_local(self.address):
            raise ValueError(f"{self.address} is not on this machine: give a certificate, in `tls`")
        return self


def dial(domain: DomainSettings) -> grpc.aio.Channel:
    """Raises `TlsError`."""
    bundle = tls.read(domain.tls) if domain.tls is not None else None
    return rpc.channel(domain.address, bundle)
