"""Certificates and invitations, as the ledger keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """Issued here, or only revoked here (`identity` ""). Times are wall times in ms; 0 = not."""

    serial: str
    identity: str = ""
    issued_ms: int = 0
    expires_ms: int = 0
    revoked_ms: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Invitation:
    """A join token that was given out; the secret itself is kept nowhere."""

    invitation_id: str
    identity: str
    secret_hash: str
    expires_ms: int
    invited_by: str
    revision: int = 0
