"""A join token: what one needs to get a first certificate, and to believe nobody else meanwhile."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass

from common.certificates import BadCertificate, load
from common.model.caller import Caller, parse_caller
from common.model.identity import parse_name

_BEGIN = "vsj1."  # the version of the form
MAX_LENGTH = 8192


class BadToken(ValueError):
    """Not a token, or not whole."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`join`: where it is redeemed. `server`: where the vCenter is. `ca`: PEM."""

    domain: str
    identity: str
    join: str
    server: str
    invitation_id: str
    secret: str
    ca: str

    def __repr__(self) -> str:
        return f"JoinToken({self.identity} in {self.domain})"  # never the secret

    @property
    def caller(self) -> Caller:
        return parse_caller(self.identity)

    def encode(self) -> str:
        text = json.dumps(asdict(self), separators=(",", ":")).encode()
        return _BEGIN + base64.urlsafe_b64encode(text).decode().rstrip("=")


def parse_token(text: str) -> JoinToken:
    """Raises `BadToken`, which never repeats what it was given."""
    text = text.strip()
    if not text.startswith(_BEGIN) or len(text) > MAX_LENGTH:
        raise BadToken(f"not a join token: it begins with {_BEGIN}")
    body = text.removeprefix(_BEGIN)
    try:
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        token = JoinToken(**{key: str(value) for key, value in said.items()})
        parse_name(token.domain)
        parse_caller(token.identity)
        load(token.ca.encode())
    except (ValueError, TypeError, AttributeError, BadCertificate):
        raise BadToken("the join token is damaged: copy all of it") from None
    return token


def hash_secret(secret: str) -> str:
    """What the ledger keeps of a secret, which is random and long: no salt is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()
