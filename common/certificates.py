"""Keys, requests, and what a certificate says. Nothing here decides whom to trust."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from common.model.caller import Caller, parse_uri

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
MAX_REQUEST = 16_384  # bytes of a request in PEM
MIN_RSA_BITS = 2048


class BadCertificate(ValueError):
    """A certificate, key or request that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What one certificate says. Times are wall times in ms."""

    domain: str
    caller: Caller
    serial: str  # hexadecimal, as `openssl x509 -serial` prints it, in lower case
    not_before_ms: int
    not_after_ms: int

    def valid_at(self, now_ms: int) -> bool:
        return self.not_before_ms <= now_ms <= self.not_after_ms

    def renew_at_ms(self) -> int:
        """Half of its life: the other half is for those who cannot reach the CA."""
        return (self.not_before_ms + self.not_after_ms) // 2


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def request_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request (RFC 2986) that proves that its sender has the key. Who that is, the CA knows
    better than the request, so its subject is empty."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(pem: bytes) -> PublicKey:
    """The key of a request whose signature holds. Raises `BadCertificate`."""
    if len(pem) > MAX_REQUEST:
        raise BadCertificate(f"a request has at most {MAX_REQUEST} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        signed, key = request.is_signature_valid, request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"not a certificate signing request in PEM: {error}") from error
    if not signed:
        raise BadCertificate("the request is not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise BadCertificate(f"an RSA key has at least {MIN_RSA_BITS} bits")
    if isinstance(key, ec.EllipticCurvePublicKey) and not _is_common(key.curve):
        raise BadCertificate(f"use P-256 or P-384, not {key.curve.name}")
    if not isinstance(key, PublicKey):
        raise BadCertificate("use an EC, Ed25519 or RSA key")
    return key


def _is_common(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1 | ec.SECP384R1)


def load(pem: bytes) -> x509.Certificate:
    """The first certificate of a file. Raises `BadCertificate`."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadCertificate(f"not a certificate in PEM: {error}") from error


def certified(pem: bytes) -> Certified:
    """What a certificate says of its holder: one URI, ours (SPIFFE X.509-SVID, section 2).

    Raises `BadCertificate`. That it was signed by a CA of ours is not checked here: TLS did.
    """
    certificate = load(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise BadCertificate(f"the certificate has {len(uris)} URIs; it must have one")
        domain, caller = parse_uri(uris[0])
    except BadCertificate:
        raise
    except (x509.ExtensionNotFound, ValueError) as error:
        raise BadCertificate(f"the certificate names nobody of ours: {error}") from error
    serial = f"{certificate.serial_number:x}"
    return Certified(
        domain,
        replace(caller, serial=serial),
        serial,
        _ms(certificate.not_valid_before_utc),
        _ms(certificate.not_valid_after_utc),
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
