"""Invitations are redeemed once; certificates are issued, renewed and revoked.

The ledger decides; the key and the signature are none of its business.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, replace

from common.errors import Reason, Refusal
from common.model.caller import Caller
from common.model.trust import Certificate, Invitation
from vcenter.core import indexes, keys
from vcenter.core.command import Decision
from vcenter.core.table import Change
from vcenter.core.view import View

MAX_INVITATIONS = 1000  # that wait to be redeemed


@dataclass(frozen=True, slots=True)
class Invite:
    invitation: Invitation

    def decide(self, view: View, now_ms: int) -> Decision:
        open_ = list(view.all(Invitation, indexes.INVITATIONS))
        late = [i for i in open_ if i.expires_ms < now_ms]
        if len(open_) - len(late) >= MAX_INVITATIONS:
            text = f"{MAX_INVITATIONS} tokens wait to be redeemed; let some expire"
            raise Refusal(Reason.OVERLOADED, text, retry_after=60.0)
        forgotten = tuple(Change(keys.invitation(i.invitation_id), None) for i in late)
        key = keys.invitation(self.invitation.invitation_id)
        return Decision((*forgotten, Change(key, self.invitation)))


@dataclass(frozen=True, slots=True)
class Redeem:
    """Replies with the identity that the token is for. Why one is refused is not told: whoever
    guesses must not learn that a token exists."""

    invitation_id: str
    secret_hash: str
    serial: str
    expires_ms: int

    def decide(self, view: View, now_ms: int) -> Decision:
        invited = view.invitation(self.invitation_id)
        good = invited is not None and hmac.compare_digest(invited.secret_hash, self.secret_hash)
        if invited is None or not good or invited.expires_ms < now_ms:
            raise Refusal(Reason.TOKEN_REFUSED, "the token is unknown, used or expired")
        used = Change(keys.invitation(self.invitation_id), None)
        issued = _issued(view, invited.identity, self.serial, now_ms, self.expires_ms)
        return Decision((used, *issued), invited.identity)


@dataclass(frozen=True, slots=True)
class Renew:
    """For who has a certificate now; `caller.serial` is its own."""

    caller: Caller
    serial: str
    expires_ms: int

    def decide(self, view: View, now_ms: int) -> Decision:
        refuse_if_revoked(view, self.caller)  # between the call and now, perhaps
        return Decision(
            tuple(_issued(view, self.caller.path, self.serial, now_ms, self.expires_ms))
        )


@dataclass(frozen=True, slots=True)
class Revoke:
    """One certificate, whoever signed it, or all that the ledger knows of an identity. Replies with
    the certificates that are revoked now."""

    serial: str
    identity: str

    def decide(self, view: View, now_ms: int) -> Decision:
        revoked = tuple(
            replace(c, revoked_ms=c.revoked_ms or now_ms) for c in self._meant(view, now_ms)
        )
        tag = indexes.of_identity(self.identity)
        invited = list(view.all(Invitation, tag)) if self.identity else []
        if not revoked and not invited:
            raise Refusal(Reason.UNKNOWN_CERTIFICATE, f"{self.identity} has no certificate of ours")
        changes = [Change(keys.certificate(c.serial), c) for c in revoked]
        changes += [Change(keys.invitation(i.invitation_id), None) for i in invited]
        return Decision(tuple(changes), revoked)

    def _meant(self, view: View, now_ms: int) -> list[Certificate]:
        if self.serial:
            return [view.certificate(self.serial) or Certificate(self.serial)]
        return list(_alive(view, self.identity, now_ms))


def refuse_if_revoked(view: View, caller: Caller) -> None:
    """Raises `Refusal(REVOKED)`."""
    known = view.certificate(caller.serial) if caller.serial else None
    if known is not None and known.revoked_ms:
        raise Refusal(Reason.REVOKED, f"certificate {caller.serial} of {caller} was revoked")


def has_another(view: View, caller: Caller, now_ms: int) -> bool:
    """Whether the caller has renewed: a certificate besides the one it called with is good."""
    return any(
        c.serial != caller.serial and not c.revoked_ms for c in _alive(view, caller.path, now_ms)
    )


def _alive(view: View, identity: str, now_ms: int) -> Iterator[Certificate]:
    for certificate in view.all(Certificate, indexes.of_identity(identity)):
        if certificate.expires_ms >= now_ms:
            yield certificate


def _issued(
    view: View, identity: str, serial: str, now_ms: int, expires_ms: int
) -> Iterator[Change]:
    """The new one; those that have expired are forgotten, nobody can call with them."""
    for old in view.all(Certificate, indexes.of_identity(identity)):
        if old.expires_ms < now_ms:
            yield Change(keys.certificate(old.serial), None)
    new = Certificate(serial, identity, now_ms, expires_ms)
    yield Change(keys.certificate(serial), new)
