"""A domain for tests: certificates that are right, and every kind that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from common import certificates, tls
from common.clock import SystemClock
from common.model.caller import parse_caller
from common.tls import Bundle
from vcenter.ca import authority
from vcenter.ca.authority import Authority

HOUR = timedelta(hours=1)


class Ca:
    """A CA in memory."""

    def __init__(self, domain: str = "local") -> None:
        self.authority: Authority = authority.create(domain, SystemClock().now_ms() - 86_400_000)

    def bundle(self, who: str, at: timedelta = timedelta(), life: timedelta = HOUR) -> Bundle:
        """`at`: how far from now its life begins."""
        key = certificates.new_key()
        now = SystemClock().now_ms() + int(at.total_seconds() * 1000)
        serial = authority.new_serial()
        signed = self.authority.sign(key.public_key(), parse_caller(who), serial, now, life)
        return tls.bundle(certificates.key_pem(key) + signed, self.authority.pem)

    def odd(self, like: Bundle, *uris: str) -> tuple[bytes, bytes]:
        """Key and certificate of this CA, with these URIs instead."""
        key = certificates.new_key()
        now = datetime.now(UTC)
        signer = serialization.load_pem_private_key(self.authority.key_pem, None)
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")]))
            .issuer_name(certificates.load(like.ca).subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + HOUR)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
        return certificates.key_pem(key), signed.public_bytes(serialization.Encoding.PEM)
