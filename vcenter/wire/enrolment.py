"""Certificates on the wire: invite, join, renew, list, revoke."""

from __future__ import annotations

import secrets
from datetime import timedelta

from common.certificates import BadCertificate, PublicKey, requested_key
from common.codec.checker import Checker
from common.codec.times import from_duration, to_timestamp
from common.codec.trust import to_certificate
from common.errors import Reason, Refusal, Violation, invalid
from common.jointoken import JoinToken, hash_secret
from common.model.caller import Caller, parse_caller
from common.model.trust import Certificate, Invitation
from common.pb.vsignal.v1 import enrolment_pb2 as pb
from common.pb.vsignal.v1 import enrolment_pb2_grpc
from vcenter.ca.authority import new_serial
from vcenter.ca.issuer import Issuer
from vcenter.core import enrolment, indexes
from vcenter.wire.context import Servicer
from vcenter.wire.guard import anonymous, unary

TOKEN_SECONDS = 600.0
MAX_TOKEN_SECONDS = 86_400.0


class EnrolmentService(Servicer, enrolment_pb2_grpc.EnrolmentServicer):
    service = "Enrolment"

    @unary
    async def Invite(self, request: pb.InviteRequest, caller: Caller) -> pb.InviteResponse:
        issuer = must_issue(self.parts.issuer)
        check = Checker()
        invited = check.parse("identity", parse_caller, request.identity, None)
        seconds = from_duration(request.valid_for) or TOKEN_SECONDS
        check.require(1.0 <= seconds <= MAX_TOKEN_SECONDS, "valid_for", "1 s to 1 day")
        check.done()
        assert invited is not None, "the check has passed"
        secret, now_ms = secrets.token_urlsafe(32), self.parts.clock.now_ms()
        invitation = Invitation(
            self.parts.new_id(),
            invited.path,
            hash_secret(secret),
            now_ms + int(seconds * 1000),
            str(caller),
        )
        await self.ledger.submit(enrolment.Invite(invitation))
        token = JoinToken(
            domain=self.parts.domain,
            identity=invited.path,
            join=issuer.join,
            server=issuer.server,
            invitation_id=invitation.invitation_id,
            secret=secret,
            ca=issuer.ca.decode(),
        )
        expires = to_timestamp(invitation.expires_ms)
        return pb.InviteResponse(token=token.encode(), expires_at=expires)

    @unary
    async def Renew(self, request: pb.RenewRequest, caller: Caller) -> pb.JoinResponse:
        issuer, key = must_issue(self.parts.issuer), _key(request.request)
        serial, now_ms = new_serial(), self.parts.clock.now_ms()
        expires_ms = now_ms + _ms(issuer.life(caller))
        await self.ledger.submit(enrolment.Renew(caller, serial, expires_ms))
        signed = issuer.sign(key, caller, serial, now_ms)
        return pb.JoinResponse(certificate=signed, ca=issuer.ca)

    @unary
    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, caller: Caller
    ) -> pb.ListCertificatesResponse:
        every = self.table.all(Certificate, indexes.CERTIFICATES)
        certificates = [to_certificate(c) for c in every]
        return pb.ListCertificatesResponse(certificates=certificates, revision=self.table.revision)

    @unary
    async def Revoke(self, request: pb.RevokeRequest, caller: Caller) -> pb.RevokeResponse:
        check = Checker()
        serial = check.parse("serial", _serial, request.serial, "") if request.serial else ""
        identity = ""
        if request.identity:
            named = check.parse("identity", parse_caller, request.identity, None)
            identity = named.path if named else ""
        check.require(bool(request.serial) != bool(request.identity), "serial", "or an identity")
        check.done()
        done = await self.ledger.submit(enrolment.Revoke(serial, identity))
        return pb.RevokeResponse(certificates=[to_certificate(c) for c in done.reply])


class JoiningService(Servicer, enrolment_pb2_grpc.JoiningServicer):
    """For who has no certificate yet: the secret is all that it can show, once."""

    @anonymous
    async def Join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        issuer, key = must_issue(self.parts.issuer), _key(request.request)
        serial, now_ms = new_serial(), self.parts.clock.now_ms()
        invited = self.table.invitation(request.invitation_id)
        life = issuer.life(parse_caller(invited.identity)) if invited else timedelta()
        redeemed = await self.ledger.submit(
            enrolment.Redeem(
                request.invitation_id, hash_secret(request.secret), serial, now_ms + _ms(life)
            )
        )
        signed = issuer.sign(key, parse_caller(redeemed.reply), serial, now_ms)
        return pb.JoinResponse(certificate=signed, ca=issuer.ca)


def must_issue(issuer: Issuer | None) -> Issuer:
    if issuer is None:
        raise Refusal(Reason.NO_CA, "this vCenter keeps no CA")
    return issuer


def _key(request: bytes) -> PublicKey:
    try:
        return requested_key(request)
    except BadCertificate as error:
        raise invalid([Violation("request", str(error))]) from None


def _serial(text: str) -> str:
    """As `openssl x509 -serial` writes it too: capitals, leading zeros."""
    try:
        number = int(text.replace(":", ""), 16)
    except ValueError:
        number = 0
    if not 0 < number < 2**160:
        raise ValueError(f"a serial number in hexadecimal, not {text[:100]!r}")
    return f"{number:x}"


def _ms(life: timedelta) -> int:
    return int(life.total_seconds() * 1000)
