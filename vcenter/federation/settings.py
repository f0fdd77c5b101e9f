"""One other vCenter, as the configuration names it."""

from __future__ import annotations

from typing import Literal, Self

import grpc.aio
from pydantic import field_validator, model_validator

from common import rpc, tls
from common.config import Section
from common.model.identity import parse_name
from common.tls import TlsSettings


class DomainSettings(Section):
    """A `child`'s or a `peer`'s ledger is followed; a `parent` is asked. `tls`: the certificate
    that the other domain's CA has given us, and that CA; without, plain text on this machine."""

    name: str
    address: str
    relation: Literal["child", "peer", "parent"]
    tls: TlsSettings | None = None

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
