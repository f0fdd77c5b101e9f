"""The CA as a running vCenter uses it: for how long, and where one joins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from common import certificates
from common.certificates import PublicKey
from common.model.caller import OPERATORS, Caller
from common.secrets import write_private
from common.tls import Bundle, Keeper
from vcenter.ca.authority import Authority, new_serial


@dataclass(frozen=True, slots=True)
class Issuer:
    """`join`: where tokens are redeemed. `server`: where the vCenter is reached."""

    authority: Authority
    hosts: timedelta
    people: timedelta
    join: str
    server: str

    @property
    def ca(self) -> bytes:
        return self.authority.pem

    def life(self, caller: Caller) -> timedelta:
        """People renew by hand, daemons by themselves."""
        return self.people if caller.role in OPERATORS else self.hosts

    def sign(self, key: PublicKey, caller: Caller, serial: str, now_ms: int) -> bytes:
        return self.authority.sign(key, caller, serial, now_ms, self.life(caller))

    def renew_own(self, keeper: Keeper, now_ms: int) -> None:
        """The vCenter's own certificate, when half of its life is over."""
        own: Bundle = keeper.current
        if own.certified.renew_at_ms() <= now_ms:
            key = certificates.new_key()
            signed = self.sign(key.public_key(), own.certified.caller, new_serial(), now_ms)
            write_private(keeper.settings.identity, certificates.key_pem(key) + signed)
            keeper.refresh()
