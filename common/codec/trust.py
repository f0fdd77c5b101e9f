"""Certificates and invitations."""

from __future__ import annotations

from common.codec.checker import Checker
from common.codec.times import from_timestamp, to_timestamp
from common.model.trust import Certificate, Invitation
from common.pb.vsignal.v1 import enrolment_pb2, storage_pb2


def to_certificate(kept: Certificate) -> enrolment_pb2.Certificate:
    wire = enrolment_pb2.Certificate(
        serial=kept.serial, identity=kept.identity, revision=kept.revision
    )
    for field, ms in (
        ("issued_at", kept.issued_ms),
        ("expires_at", kept.expires_ms),
        ("revoked_at", kept.revoked_ms),
    ):
        if ms:
            getattr(wire, field).CopyFrom(to_timestamp(ms))
    return wire


def from_certificate(check: Checker, wire: enrolment_pb2.Certificate) -> Certificate:
    check.require(bool(wire.serial), "serial", "is required")
    return Certificate(
        wire.serial,
        wire.identity,
        from_timestamp(wire.issued_at),
        from_timestamp(wire.expires_at),
        from_timestamp(wire.revoked_at),
        wire.revision,
    )


def to_invitation(kept: Invitation) -> storage_pb2.Invitation:
    return storage_pb2.Invitation(
        invitation_id=kept.invitation_id,
        identity=kept.identity,
        secret_hash=kept.secret_hash,
        expires_at=to_timestamp(kept.expires_ms),
        invited_by=kept.invited_by,
    )


def from_invitation(check: Checker, wire: storage_pb2.Invitation) -> Invitation:
    check.require(bool(wire.invitation_id), "invitation_id", "is required")
    return Invitation(
        wire.invitation_id,
        wire.identity,
        wire.secret_hash,
        from_timestamp(wire.expires_at),
        wire.invited_by,
    )
